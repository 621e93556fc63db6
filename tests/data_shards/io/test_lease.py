"""One process at a time works in a folder: also over machines, after crashes, and where many start at once."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from support.running import ROOT

from data_shards.io import lease as leases
from data_shards.io.errors import InputError
from data_shards.io.lease import LeaseHeld, LeaseLost, lease

_HOLD = (
    "import pathlib, sys; from data_shards.io.lease import lease\n"
    "with lease(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lease on tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def held_elsewhere(folder, *, host="node7", boot="another boot", silent_seconds=0.0, token="0123abcd"):
    """A lease file as a process of another machine leaves it. Returns its path."""
    record = {"token": token, "since": "2026-01-01 00:00:00 +0000", "host": host, "pid": 4242, "started": 1}
    path = folder / ".lease.json"
    path.write_text(json.dumps({**record, "boot": boot, "namespace": "pid:[1]", "command": "python -m trainer"}))
    touched = time.time() - silent_seconds
    os.utime(path, (touched, touched))
    return path


def test_a_second_process_is_told_in_one_line_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(InputError) as refused, lease(tmp_path):
        pass
    message = str(refused.value)
    assert "\n" not in message
    assert f"process {holder.pid} on " in message
    assert all(part in message for part in (str(tmp_path), "since 20", "--steal-lock"))


def test_a_released_lease_leaves_no_file(tmp_path):
    with lease(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lease.json"]
    assert not list(tmp_path.iterdir())


def test_things_with_other_names_in_one_folder_are_held_apart(tmp_path, holder):
    with lease(tmp_path, "fid"), lease(tmp_path, "likelihood"):
        pass


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path):
    with lease(tmp_path), pytest.raises(LeaseHeld), lease(tmp_path):
        pass


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path, holder, capfd):
    holder.kill()  # and not waited for: a zombie holds nothing
    began = time.monotonic()
    with lease(tmp_path):
        assert time.monotonic() - began < leases.RESTARTED_SECONDS
    assert capfd.readouterr().err == ""


def test_a_number_that_another_process_has_got_since_does_not_hold_the_lease(tmp_path, holder):
    path = tmp_path / ".lease.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getpid()}))  # started at another time
    with lease(tmp_path):
        pass


@pytest.mark.skipif(not os.path.exists("/proc/self/comm"), reason="names of processes are Linux's")
def test_a_holder_whose_name_is_cut_within_a_letter_is_seen_to_run(tmp_path):
    code = "open('/proc/self/comm', 'wb').write('\u00e9'.encode() * 8);" + _HOLD
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], env=environment, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeld), lease(tmp_path):
            pass
        process.communicate("")


def test_a_silent_holder_on_another_machine_loses_its_lease(tmp_path, capfd):
    held_elsewhere(tmp_path, silent_seconds=leases.STALE_SECONDS + 1)
    with lease(tmp_path):
        pass
    assert "taken over from process 4242 on node7" in capfd.readouterr().err


def test_a_machine_that_restarted_loses_its_leases_sooner(tmp_path):
    here = leases.this_process().host
    held_elsewhere(tmp_path, host=here, silent_seconds=leases.RESTARTED_SECONDS + 1)
    with lease(tmp_path):
        pass


def test_a_holder_on_another_machine_that_shows_a_heartbeat_keeps_its_lease(tmp_path):
    path, over = held_elsewhere(tmp_path, silent_seconds=50), threading.Event()

    def beat():
        while not over.wait(0.7):
            os.utime(path)

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(LeaseHeld, match="4242 on node7"), lease(tmp_path):
        pass
    over.set()
    beating.join()


def test_a_holder_on_another_machine_that_falls_silent_is_waited_out(tmp_path, monkeypatch, capfd):
    held_elsewhere(tmp_path)
    said, taken = "", threading.Event()

    def take():
        with lease(tmp_path):
            taken.set()

    taking = threading.Thread(target=take)
    taking.start()
    while "waiting for a sign of life, at most 120 s" not in said:
        said += capfd.readouterr().err
    assert not taken.is_set()
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.0)  # the two minutes are over
    taking.join()
    assert taken.is_set()
    said += capfd.readouterr().err
    assert said.count("waiting for a sign of life") == said.count("taken over from process 4242 on node7") == 1


def copied_from_a_held_folder(tmp_path, *, silent_seconds):
    """A copy of tmp_path, which another process of this machine holds, with the lease file that was in it."""
    copy = shutil.copytree(tmp_path, tmp_path / "copy")
    touched = time.time() - silent_seconds
    os.utime(copy / ".lease.json", (touched, touched))
    return copy


def test_a_lease_that_was_copied_with_its_folder_is_waited_out_though_its_holder_works_on(tmp_path, holder, capfd):
    copy = copied_from_a_held_folder(tmp_path, silent_seconds=leases.STALE_SECONDS + 1)
    with lease(copy), pytest.raises(LeaseHeld, match=f"process {holder.pid} on "), lease(tmp_path):
        pass
    assert f"taken over from process {holder.pid} on " in capfd.readouterr().err


def test_a_folder_whose_number_has_changed_stays_held_while_its_holder_shows_a_heartbeat(tmp_path, holder):
    """As those of file systems that count folders anew do: what is taken for a copy may be the folder itself."""
    copy, over = copied_from_a_held_folder(tmp_path, silent_seconds=50), threading.Event()

    def beat():
        while not over.wait(0.7):
            os.utime(copy / ".lease.json")

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(LeaseHeld, match=f"process {holder.pid} on "), lease(copy):
        pass
    over.set()
    beating.join()


def test_a_holder_of_this_machine_that_runs_keeps_its_lease_without_a_heartbeat(tmp_path, holder):
    """As one that is stopped by Ctrl-Z."""
    touched = time.time() - leases.STALE_SECONDS - 1
    os.utime(tmp_path / ".lease.json", (touched, touched))
    with pytest.raises(LeaseHeld), lease(tmp_path):
        pass


def test_a_touch_by_a_clock_that_was_set_back_since_does_not_hold_a_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.5)
    held_elsewhere(tmp_path, silent_seconds=-3600)
    with lease(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b'{"token": 1}', b'{"token": "../x"}', b"\xff\xfe"])
def test_a_damaged_lease_file_is_held_until_it_is_old(tmp_path, content):
    path = tmp_path / ".lease.json"
    path.write_bytes(content)
    old = time.time() - leases.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with lease(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_who_steals_a_lease_gets_it_and_the_former_holder_finds_out(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.1)
    with lease(tmp_path) as former, lease(tmp_path, steal=True) as new:
        assert "taken over from" in capfd.readouterr().err
        new.check()
        with pytest.raises(LeaseLost, match="taken over by process"):
            former.check()
        while not former.is_lost:
            time.sleep(0.01)
        former.release()
        new.check()  # the former holder has not removed it


def test_at_no_moment_of_a_takeover_is_there_no_lease(tmp_path):
    """So the former holder, which may look at any moment, always reads who has taken it over."""
    missed, over = [], threading.Event()
    held_elsewhere(tmp_path)

    def look():
        while not over.is_set():
            missed.append(leases._read(tmp_path / ".lease.json") is None)

    looking = threading.Thread(target=look)
    looking.start()
    with contextlib.ExitStack() as stack:
        taken = 0
        while taken < 20 or len(missed) < 100:
            stack.enter_context(lease(tmp_path, steal=True))
            taken += 1
        over.set()
        looking.join()
    assert not any(missed)


def test_a_lease_file_that_was_removed_is_a_lost_lease(tmp_path):
    with lease(tmp_path) as held:
        (tmp_path / ".lease.json").unlink()
        with pytest.raises(LeaseLost, match="removed"):
            held.check()


def test_the_heartbeat_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    with lease(tmp_path):
        path = tmp_path / ".lease.json"
        before = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == before:
            time.sleep(0.01)


def test_a_takeover_whose_process_died_halfway_is_completed(tmp_path, holder):
    holder.kill()
    holder.wait()
    path = tmp_path / ".lease.json"
    token = json.loads(path.read_text())["token"]
    for number in (1, 2):
        (tmp_path / f".lease.json.{token}.end{number}").write_text(path.read_text())  # made by the dead process
    with lease(tmp_path):
        assert [found.name for found in tmp_path.iterdir()] == [".lease.json"]


# Each process takes the lease again and again, kills itself while it holds it at times, and counts in a file that only
# the holder may touch.
_COMPETE = """
import os, pathlib, random, signal, sys
from data_shards.io.lease import LeaseHeld, lease
folder, chance = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
while not (folder / "over").exists():
    try:
        with lease(folder) as held:
            handle = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
            held.check()
            (folder / "turns").open("a").write("x")
            os.unlink(folder / "inside")
            if chance.random() < 0.05:
                os.kill(os.getpid(), signal.SIGKILL)
            os.close(handle)
    except LeaseHeld:
        pass
    except FileExistsError:
        (folder / "two at once").touch()
"""


def test_of_many_that_start_at_once_and_die_at_times_only_one_is_ever_inside(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begin = lambda number: subprocess.Popen([sys.executable, "-c", _COMPETE, tmp_path, str(number)], env=environment)  # noqa: E731
    running, started, turns = [begin(number) for number in range(6)], 6, tmp_path / "turns"
    while started < 9 or turns.stat().st_size <= 100:
        for place, process in enumerate(running):
            if process.poll() is not None:
                running[place], started = begin(started), started + 1
        time.sleep(0.05)
    (tmp_path / "over").touch()
    for process in running:
        process.wait()
    assert not (tmp_path / "two at once").exists()
    assert not list(tmp_path.glob(".lease.json.*"))
