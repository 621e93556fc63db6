"""Locks between processes and threads."""

import subprocess
import sys
import threading

from data_shards.io.disk import locked, locked_if_free

_HOLD = (
    "import pathlib, sys; from data_shards.io.disk import locked\n"
    "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def _holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_waits_until_the_lock_is_released(tmp_path):
    path = tmp_path / "file"
    process = _holder(path)
    with locked_if_free(path) as mine:
        assert not mine
    process.communicate("")
    with locked_if_free(path) as mine:
        assert mine
    with locked(path):
        pass


def test_a_killed_process_releases_its_lock(tmp_path):
    path = tmp_path / "file"
    process = _holder(path)
    process.kill()
    process.communicate()
    with locked_if_free(path) as mine:
        assert mine


def test_another_thread_does_not_share_the_lock(tmp_path):
    found = []

    def try_it():
        with locked_if_free(tmp_path / "file") as mine:
            found.append(mine)

    with locked(tmp_path / "file"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert found == [False]
