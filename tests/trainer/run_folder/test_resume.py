"""A run that was killed or stopped resumes, and ends in the weights of an uninterrupted run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from support.forked import Job
from support.running import ROOT, run_module
from support.training import events, train, weights, words

from trainer.__main__ import read_command_line
from trainer.loop import train as run_training
from trainer.run_folder.checkpoint import complete_checkpoints


@pytest.fixture(scope="module")
def uninterrupted(digits_shards, tmp_path_factory):
    """A run without any interruption."""
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "uninterrupted")


def held(folder: Path, arguments: list[str], processes: int, *, images: int) -> subprocess.Popen:
    """Trains on so many images, and returns while the run waits for the file `go` in `folder`."""
    launcher = [sys.executable]
    if processes:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--"]
    process = subprocess.Popen(
        [*launcher, str(ROOT / "tests/support/held_training.py"), str(folder), str(images), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (folder / "held").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return process


def kill_after(images: int, folder: Path, arguments: list[str], processes: int = 0) -> None:
    """Trains on so many images, and sends SIGKILL to the process and its children."""
    process = held(folder, arguments, processes, images=images)
    for started in psutil.Process(process.pid).children(recursive=True):
        started.kill()
    process.kill()
    process.wait()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("images", [600, 1200, 1700], ids=["early in stage 1", "late in stage 1", "in stage 2"])
def test_a_killed_run_resumes_to_the_same_bits(digits_shards, tmp_path, uninterrupted, images):
    arguments = words(digits_shards, tmp_path, "killed", checkpoint__keep_last=100)
    run = tmp_path / "killed"
    kill_after(images, tmp_path, arguments)
    done = run_module("trainer", *arguments)
    assert done.returncode == 0, done.stderr
    assert events(run, "resume")
    assert equal(weights(run), weights(uninterrupted))


def test_a_killed_run_of_two_processes_resumes_to_the_same_bits(digits_shards, tmp_path):
    whole = train(digits_shards, tmp_path, "whole", processes=2)
    arguments = words(digits_shards, tmp_path, "killed", checkpoint__keep_last=100)
    run = tmp_path / "killed"
    kill_after(900, tmp_path, arguments, processes=2)
    done = run_module("trainer", *arguments, processes=2)
    assert done.returncode == 0, done.stderr
    assert events(run, "resume")
    assert equal(weights(run), weights(whole))


def newest(run: Path) -> int:
    """Images at the newest complete checkpoint."""
    return max((int(folder.name) for folder in complete_checkpoints(run)), default=0)


def unfinished(run: Path) -> list[int]:
    """Images of the checkpoints that are being written or removed."""
    return [int(path.name.split(".")[1]) for path in run.glob("checkpoints/.*.partial")]


@pytest.mark.slow
def test_twenty_kills_while_checkpoints_are_written_and_pruned_change_nothing(digits_shards, tmp_path, uninterrupted):
    arguments = words(digits_shards, tmp_path, "killed", checkpoint__every_images=30, checkpoint__keep_last=1)
    run = tmp_path / "killed"
    chance = random.Random(0)
    in_writing = in_pruning = 0
    for number in range(20):
        job, before, deadline = Job.start(arguments, 1, tmp_path), newest(run), time.monotonic() + 600
        while newest(run) == before:
            assert time.monotonic() < deadline, job.said()
        if number % 3 == 1:
            time.sleep(chance.uniform(0, 0.02))
        elif number % 3 == 2:  # else at once: the older checkpoints are removed after the new one is complete
            while not any(images > newest(run) for images in unfinished(run)):
                assert time.monotonic() < deadline
        assert job.processes[0].is_alive(), "the run ended before it could be killed"
        job.kill(signal.SIGKILL, [0], with_children=True)
        job.wait(120)
        in_writing += any(images > newest(run) for images in unfinished(run))
        in_pruning += any(images < newest(run) for images in unfinished(run)) or len(complete_checkpoints(run)) > 1
    print(f"{in_writing} kills while a checkpoint was written, {in_pruning} before all older ones were removed")
    assert in_writing >= 1
    assert in_pruning >= 1
    assert newest(run) < newest(uninterrupted)
    done = run_module("trainer", *arguments)
    assert done.returncode == 0, done.stderr
    assert len(events(run, "resume")) >= 1
    assert equal(weights(run), weights(uninterrupted))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_signal_ends_the_run_with_a_checkpoint_and_requests_a_requeue(digits_shards, tmp_path, uninterrupted, name):
    arguments = words(digits_shards, tmp_path, "signalled", checkpoint__every_images=10**6)
    process, run = held(tmp_path, arguments, 0, images=0), tmp_path / "signalled"
    process.send_signal(getattr(signal, name))
    (tmp_path / "go").touch()
    assert process.wait() == 0
    assert (run / "requeue").read_text() == f"yes {name}\n"
    (stop,) = events(run, "stop")
    assert complete_checkpoints(run)[-1].name == f"{stop['images']:012d}"
    assert run_module("trainer", *arguments).returncode == 0
    assert not (run / "requeue").exists()
    assert equal(weights(run), weights(uninterrupted))


def test_a_stop_file_ends_the_run_without_a_requeue(digits_shards, tmp_path, capfd):
    def leave_stop_file(kind, images, facts):
        (tmp_path / "stopped" / "STOP").touch()

    arguments = words(digits_shards, tmp_path, "stopped", stage1__max_epochs=1000)
    run = run_training(read_command_line(arguments).config, leave_stop_file)
    assert (run / "requeue").read_text() == "no STOP\n"
    (stop,) = events(run, "stop")
    assert newest(run) == stop["images"]
    line = capfd.readouterr().out.splitlines()[-1]
    assert "stopped by STOP" in line
    assert str(complete_checkpoints(run)[-1]) in line
    assert line.endswith(f"rm {run}/STOP && python -m trainer --config {run}/config.yaml")


def test_a_stop_file_left_behind_keeps_the_run_from_training_and_says_so(digits_shards, tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "STOP").touch()
    done = run_module("trainer", *words(digits_shards, tmp_path, "left"))
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == f"error: {tmp_path}/left/STOP: this file keeps the run from training; remove it and start again"
    )
    assert not (tmp_path / "left" / "metrics.jsonl").exists()


def test_the_time_limit_ends_the_run_and_requests_a_requeue(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "timed", checkpoint__walltime_minutes=0.0001)
    assert (run / "requeue").read_text() == "yes walltime\n"


def test_a_finished_run_returns_at_once_and_is_not_changed(digits_shards, uninterrupted):
    before = sorted((path, path.stat().st_mtime_ns) for path in uninterrupted.rglob("*"))
    done = run_module("trainer", *words(digits_shards, uninterrupted.parent, "uninterrupted"))
    assert done.returncode == 0
    assert "is complete" in done.stdout
    assert sorted((path, path.stat().st_mtime_ns) for path in uninterrupted.rglob("*")) == before


def test_another_configuration_is_refused_with_the_difference(digits_shards, uninterrupted):
    done = run_module("trainer", *words(digits_shards, uninterrupted.parent, "uninterrupted", seed=1))
    assert done.returncode == 2
    assert "seed: 0 -> 1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_checkpoint_is_skipped_and_named(digits_shards, tmp_path, uninterrupted):
    arguments = words(digits_shards, tmp_path, "damaged", checkpoint__every_images=600)
    (tmp_path / "damaged").mkdir()
    run = tmp_path / "damaged"
    kill_after(1300, tmp_path, arguments)
    newest = complete_checkpoints(run)[-1] / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = run_module("trainer", *arguments)
    assert done.returncode == 0, done.stderr
    assert str(newest) in events(run, "checkpoint_damaged")[0]["message"]
    assert equal(weights(run), weights(uninterrupted))


def test_an_incomplete_checkpoint_is_not_used(digits_shards, tmp_path, uninterrupted):
    arguments = words(digits_shards, tmp_path, "cut")
    run = tmp_path / "cut"
    kill_after(900, tmp_path, arguments)
    (complete_checkpoints(run)[-1] / "COMPLETE").unlink()
    done = run_module("trainer", *arguments)
    assert done.returncode == 0, done.stderr
    assert equal(weights(run), weights(uninterrupted))
