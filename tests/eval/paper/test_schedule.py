"""A job that fails is named with what it said last."""

import json

import pytest

from eval.paper.schedule import last_line, run_here


@pytest.fixture
def broken_job(tmp_path):
    """A job whose shards do not exist."""
    path = tmp_path / "broken.json"
    measure = {"mixture": {"components": 4, "encodings": "posterior"}, "candidates": [1]}
    work = {"run": str(tmp_path / "run"), "configuration": "c", "train": ["trainer"], "shards": str(tmp_path / "none")}
    path.write_text(json.dumps(work | {"asks": [], "pictures": [], "measure": measure, "device": "cpu"}))
    return path


def test_a_job_that_fails_is_named_with_its_last_line(tmp_path, broken_job):
    told = []
    (outcome,) = run_here([broken_job], [tmp_path / "log"], 1, lambda *words: told.append(words))
    assert outcome.name == "broken"
    assert "none" in outcome.failure
    assert str(tmp_path / "log") in outcome.failure
    assert told == [(outcome, 1, 1)]


def test_the_last_line_is_the_last_that_says_something(tmp_path):
    log = tmp_path / "log"
    log.write_text("first\nerror: data.shards: is missing\n\n")
    assert last_line(log, 2) == f"error: data.shards: is missing; see {log}"
    assert last_line(log, -9) == f"ended by SIGKILL; see {log}"
