"""Sweeps whose trials take turns, through Ray: halving and population based training, killed and continued."""

import signal
from pathlib import Path

import pytest
from support.sweep_cases import write_sweep
from test_sweep import by_name, run_tune
from test_sweep_faults import end, start, wait_for

from trainer.run_folder.log import read_events
from tune.search.halving import LEAST_ENDED
from tune.sweep_config import read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]


def write(folder: Path, shards: Path, scheduler: str) -> Path:
    return write_sweep(
        folder,
        shards,
        fields={"stage1.max_epochs": 3, "stage2.max_epochs": 3},
        search="random",
        configurations=8,
        concurrent=2,
        space={"optimiser.learning_rate": {"loguniform": [1e-5, 1e-2]}, "model.latent_dim": {"choice": [2, 4]}},
        stopping={"scheduler": scheduler, "first_percent": 5, "min_images": 0},
    )


def kill_when(path: Path, condition) -> None:
    command = start(path)
    try:
        wait_for(condition, 800)
        command.send_signal(signal.SIGKILL)
    finally:
        end(command)


def test_with_halving_few_trials_are_trained_to_their_ends_and_a_killed_sweep_goes_on(tmp_path, digits_shards):
    path = write(tmp_path, digits_shards, "halving")
    trials = read_sweep(path).trials_folder
    kill_when(path, lambda: len(list(trials.glob("*/attempts.jsonl"))) >= 5)
    done = run_tune(path, timeout=800)
    assert done.returncode == 0, done.stderr
    records = by_name(path)
    finished = [record for record in records.values() if record.status == "finished"]
    stopped = [record for record in records.values() if record.status == "stopped"]
    assert len(records) == 8 == len(finished) + len(stopped)
    assert LEAST_ENDED <= len(finished) < 8
    assert all(record.reason.startswith("halving, at the rung of ") for record in stopped)
    assert max(record.final_elbo for record in finished) > max(record.checks[-1].elbo for record in stopped)
    # Each goes on where it has stood: what was checked is checked once.
    for record in records.values():
        checked = [event["images"] for event in read_events(trials / record.trial) if event["event"] == "valid"]
        assert checked == sorted(set(checked))


def test_in_a_population_poor_trials_take_over_good_ones_and_a_killed_sweep_goes_on(tmp_path, digits_shards):
    path = write(tmp_path, digits_shards, "pbt")
    trials = read_sweep(path).trials_folder
    kill_when(path, lambda: any(trials.glob("*/takeovers.jsonl")))
    before = {record.trial: record.takeovers for record in by_name(path).values()}
    done = run_tune(path, timeout=800)
    assert done.returncode == 0, done.stderr
    records = by_name(path)
    assert [record.status for record in records.values()] == ["finished"] * 8
    changed = [record for record in records.values() if record.takeovers]
    assert changed
    for record in changed:
        assert record.takeovers[: len(before.get(record.trial, ()))] == before.get(record.trial, ())
        last = record.takeovers[-1]
        assert record.fields == last.fields
        assert last.source in records
        assert record.fields["optimiser.learning_rate"] == last.learning_rate
        assert (last.learning_rate == last.before) == last.how.startswith("kept")
    assert "took over" in (read_sweep(path).folder / "sweep.html").read_text()


def test_a_trial_of_two_processes_takes_turns_as_one_of_one_process(tmp_path, digits_shards):
    path = write_sweep(
        tmp_path,
        digits_shards,
        workers=2,
        concurrent=1,
        space={"model.latent_dim": {"choice": [2, 4]}},
        stopping={"scheduler": "halving", "first_percent": 20, "min_images": 0},
    )
    done = run_tune(path, timeout=800)
    assert done.returncode == 0, done.stderr
    trials = read_sweep(path).trials_folder
    for name, record in by_name(path).items():
        assert (record.status, record.retries) == ("finished", 0)
        assert [event["reason"] for event in read_events(trials / name) if event["event"] == "stop"] == ["caller"] * 3
