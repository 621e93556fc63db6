"""A stop while images are waited for: a real server that accepts calls and does not answer, every way to be stopped."""

import signal
import time

import pytest
from support.failing_server import FailingServer, failing
from support.forked import Job
from support.running import run_module
from support.training import events, train, weights, words

from trainer.run_folder.checkpoint import complete_checkpoints, read_state

FIELDS = {
    "data__cache_bytes": 600_000,
    "data__valid_images": 60,
    "stage1__max_epochs": 2,
    "stage2__max_epochs": 0,
    "stage1__check_images": 10_000,
    "log__every_images": 30,
    "checkpoint__every_images": 10_000,
}


@pytest.fixture(scope="module")
def small_shards(digits_source, tmp_path_factory):
    """Of 100 images each, of which a window of two is in the cache."""
    out = tmp_path_factory.mktemp("small") / "shards"
    options = ("--valid", "200", "--shard-images", "100", "--window", "2")
    done = run_module("data_shards", "build", "mnist", "--source", str(digits_source), "--out", str(out), *options)
    assert done.returncode == 0, done.stderr
    return out


def start(server: FailingServer, tmp_path, processes: int, **fields) -> Job:
    chosen = FIELDS | {"data__cache_dir": tmp_path / "cache"} | fields
    return Job.start(words(server.address, tmp_path, "run", **chosen), processes, tmp_path)


def wait_for_silence(job: Job, server: FailingServer) -> None:
    """Returns when the server does not answer and nobody goes on."""
    deadline = time.monotonic() + 600
    while server.failed == 0 or "waiting: " not in job.said():
        assert time.monotonic() < deadline, job.said()
        assert any(process.is_alive() for process in job.processes), job.said()
        time.sleep(0.05)


def stopped_at(job: Job, tmp_path, reason: str, code: int = 0) -> int:
    """Checks what a stop left, and returns the images of its checkpoint."""
    assert job.wait(120) == [code] * len(job.processes), job.said()
    run, said = tmp_path / "run", job.said()
    assert "Traceback" not in said
    assert said.count("stopped by") == 1, said
    (stop,) = events(run, "stop")
    assert stop["reason"] == reason
    state = read_state(complete_checkpoints(run)[-1])
    assert state.images == stop["images"]
    return state.images


@pytest.mark.parametrize(
    ("processes", "way", "ranks"),
    [
        (2, "SIGTERM", [0, 1]),
        (1, "STOP", []),
        pytest.param(2, "SIGINT", [1], marks=pytest.mark.slow),
        pytest.param(2, "STOP", [], marks=pytest.mark.slow),
        pytest.param(3, "walltime", [], marks=pytest.mark.slow),
    ],
)
def test_a_stop_while_processes_wait_for_a_silent_server_is_heeded_and_loses_nothing(
    small_shards, tmp_path, processes, way, ranks
):
    limit = {"checkpoint__walltime_minutes": 0.4} if way == "walltime" else {}
    with failing(small_shards, "hang", after=16, seconds=1000) as server:
        job = start(server, tmp_path, processes, **limit)
        wait_for_silence(job, server)
        if way == "STOP":
            (tmp_path / "run" / "STOP").touch()
        elif way != "walltime":
            job.kill(getattr(signal, way), ranks)
        images = stopped_at(job, tmp_path, way)
    (tmp_path / "run" / "STOP").unlink(missing_ok=True)
    assert 0 < images < 2794
    if processes == 1:
        fields = FIELDS | {"data__cache_dir": tmp_path / "cache"}
        found = weights(train(small_shards, tmp_path, "run", **fields))
        expected = weights(train(small_shards, tmp_path, "whole", **fields))
        assert all((found[name] == expected[name]).all() for name in expected)


def test_a_stop_while_processes_wait_in_a_pass_over_images_is_heeded(small_shards, tmp_path):
    with failing(small_shards, "hang", after=0, seconds=1000, only="valid") as server:
        job = start(server, tmp_path, 2)
        wait_for_silence(job, server)
        job.kill(signal.SIGTERM, [0])
        images = stopped_at(job, tmp_path, "SIGTERM")
    assert images > 0
    assert not events(tmp_path / "run", "valid")
