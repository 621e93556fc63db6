"""The trace of a few updates."""

import json

from support.training import train


def test_the_trace_holds_the_configured_number_of_updates(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "profiled", log__profile_steps=2, stage1__max_epochs=0.3, stage2__max_epochs=0)
    names = [event.get("name", "") for event in json.loads((run / "profile.json").read_text())["traceEvents"]]
    assert len([name for name in names if name.startswith("ProfilerStep")]) == 2
    assert any("Adam" in name for name in names)


def test_each_process_has_a_trace_that_shows_its_waits(digits_shards, tmp_path):
    fields = {"log__profile_steps": 2, "stage1__max_epochs": 0.3, "stage2__max_epochs": 0}
    run = train(digits_shards, tmp_path, "two", processes=2, **fields)
    for name in ("profile.json", "profile-1.json"):
        names = [event.get("name", "") for event in json.loads((run / name).read_text())["traceEvents"]]
        assert names.count("wait for the other processes") == 2
