"""Reader processes outlive the signals that stop a job, end with their parent, and are replaced where they are lost."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from support.failing_server import failing
from support.running import ROOT

from data_shards.io.errors import MachineFault
from data_shards.stream.reader_process import STOPPING_SIGNALS
from data_shards.stream.stream import ShardStream

SCRIPT = Path(__file__).parents[2] / "support" / "signalled_reader.py"


def started(address, seconds: float) -> subprocess.Popen:
    """A process group of a stream with two readers."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(address), str(seconds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def digests(shards) -> list[str]:
    stream = ShardStream(shards, split="train", global_batch=8)
    return [hashlib.sha256(batch.image.numpy().tobytes()).hexdigest() for batch in stream]


def readers_in(line: str) -> list[int]:
    return [int(word) for word in line.split()[1:]]


def gone(pids: list[int], within: float = 60) -> bool:
    """Whether the processes have ended, but for what their parent has not collected."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        left = [pid for pid in pids if psutil.pid_exists(pid)]
        if all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in left if psutil.pid_exists(pid)):
            return True
        time.sleep(0.05)
    return False


def test_signals_to_the_whole_process_group_do_not_reach_the_readers(uneven_shards):
    process = started(uneven_shards, 0.05)
    lines = [process.stdout.readline()]
    first = readers_in(lines[0])
    for number in STOPPING_SIGNALS:
        os.killpg(process.pid, number)
        lines.append(process.stdout.readline())
    rest, errors = process.communicate(timeout=300)
    lines += rest.splitlines()
    assert (process.returncode, errors) == (0, "")
    assert [line.split()[0] for line in lines] == digests(uneven_shards)
    assert set(first) <= set(readers_in(lines[-1]))  # the same processes


def test_signals_while_readers_start_do_not_end_them(uneven_shards):
    stream = ShardStream(uneven_shards, split="train", global_batch=8, workers=2)
    handlers = [(number, signal.signal(number, lambda *_: None)) for number in STOPPING_SIGNALS]
    pids: set[int] = set()
    batches = []

    def load():
        batches.extend(stream)

    try:
        thread = threading.Thread(target=load)
        thread.start()
        while thread.is_alive():
            for pid in stream.reader_pids:
                pids.add(pid)
                for number in STOPPING_SIGNALS:
                    os.kill(pid, number)
            time.sleep(0.005)
        thread.join()
    finally:
        stream.close()
        for number, handler in handlers:
            signal.signal(number, handler)
    assert len(pids) == 2
    assert [hashlib.sha256(b.image.numpy().tobytes()).hexdigest() for b in batches] == digests(uneven_shards)


def test_lost_readers_are_replaced_at_the_exact_place(uneven_shards, capfd):
    stream = ShardStream(uneven_shards, split="train", global_batch=8, workers=2)
    local = ShardStream(uneven_shards, split="train", global_batch=8)
    for step, (batch, expected) in enumerate(zip(stream, local, strict=True)):
        assert torch.equal(batch.image, expected.image)
        assert torch.equal(batch.index, expected.index)
        if step in (1, 2, 7, 11):
            for pid in stream.reader_pids[: 1 + step % 2]:
                os.kill(pid, signal.SIGKILL)
    stream.close()
    assert "a reader process was killed by SIGKILL; started again at the same batch" in capfd.readouterr().err


def test_readers_that_are_lost_again_and_again_end_in_one_line(uneven_shards):
    stream = ShardStream(uneven_shards, split="train", global_batch=8, workers=1)
    over = threading.Event()

    def kill():
        while not over.wait(0.002):
            for pid in stream.reader_pids:
                with contextlib.suppress(ProcessLookupError):  # its parent has just collected it
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(
            MachineFault, match="a reader process was killed by SIGKILL, 3 times in a row at the same batch"
        ):
            list(stream)
    finally:
        over.set()
        killer.join()
        stream.close()


def test_readers_end_with_a_parent_that_is_killed(uneven_shards):
    process = started(uneven_shards, 0.2)
    process.stdout.readline()
    pids = readers_in(process.stdout.readline())
    assert len(pids) == 2
    process.kill()
    assert gone(pids)
    process.communicate()


def test_readers_end_with_a_killed_parent_while_they_wait_for_a_server(uneven_shards, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path))
    with failing(uneven_shards, "hang", after=0, seconds=100) as server:
        process = started(server.address, 0)
        until = time.monotonic() + 300
        while server.failed < 2 and time.monotonic() < until:
            time.sleep(0.05)
        pids = [child.pid for child in psutil.Process(process.pid).children()]
        assert len(pids) == 2
        process.kill()
        assert gone(pids)
        process.communicate()


def test_closing_a_stream_ends_its_readers_and_iterating_starts_new_ones(uneven_shards):
    stream = ShardStream(uneven_shards, split="train", global_batch=8, workers=2)
    next(iter(stream))
    before = stream.reader_pids
    stream.close()
    assert gone(before)
    rest = list(stream)
    stream.close()
    assert [hashlib.sha256(b.image.numpy().tobytes()).hexdigest() for b in rest] == digests(uneven_shards)[1:]


def test_a_stream_that_is_forgotten_takes_its_readers_along(uneven_shards):
    stream = ShardStream(uneven_shards, split="train", global_batch=8, workers=1)
    for _ in stream:
        pass
    pids = stream.reader_pids
    assert len(pids) == 1
    del stream
    assert gone(pids)


def test_a_reader_imports_no_torch():
    code = "import sys, data_shards.stream.reader_process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_defect_in_a_reader_keeps_its_traceback(uneven_shards, monkeypatch):
    stream = ShardStream(uneven_shards, split="train", global_batch=8, workers=1)
    monkeypatch.setattr(stream._loader, "starts", lambda start: iter([10**9]))
    with pytest.raises(RuntimeError, match=r"in a reader process:\nTraceback"):
        list(stream)
    stream.close()
