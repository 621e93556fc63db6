"""Files and folders that are replaced whole or not at all."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from data_shards.io import atomic
from data_shards.io.errors import MachineFault


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file.json"
    atomic.write_json(path, {"a": 1})
    atomic.write_json(path, {"a": [2]})
    assert path.read_text() == '{\n "a": [\n  2\n ]\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_former_content(tmp_path):
    path = tmp_path / "file"
    atomic.write_text(path, "former")

    def fail_halfway():
        with atomic.replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_of_the_same_number_on_one_disk_write_the_same_file(tmp_path):
    path = tmp_path / "file"
    with atomic.replacing(path) as ours:
        ours.write(b"ours")
        with atomic.replacing(path) as theirs:  # of another container, whose number is ours too
            theirs.write(b"theirs")
        assert path.read_bytes() == b"theirs"
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "file", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_process_killed_while_writing_leaves_former_or_new_content_and_nothing_between(tmp_path):
    path = tmp_path / "file"
    contents = {letter * 200_000 for letter in "ab"}
    atomic.write_text(path, "a" * 200_000)
    code = (
        "import itertools, sys, pathlib; from data_shards.io import atomic\n"
        "for letter in itertools.cycle('ab'): atomic.write_text(pathlib.Path(sys.argv[1]), letter * 200_000)"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        before = path.stat().st_ino
        while path.stat().st_ino == before:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.read_text() in contents


def test_a_folder_replaces_a_former_one_of_the_same_kind(tmp_path):
    final, beside = tmp_path / "final", tmp_path / "beside"
    for folder, text in ((final, "incomplete"), (beside, "whole")):
        folder.mkdir()
        (folder / "file").write_text(text)
    atomic.replace_folder(beside, final, re.compile("file"))
    assert (final / "file").read_text() == "whole"
    assert not beside.exists()


def test_a_folder_does_not_replace_one_with_files_of_others(tmp_path):
    final, beside = tmp_path / "final", tmp_path / "beside"
    for folder, name in ((final, "precious"), (beside, "file")):
        folder.mkdir()
        (folder / name).touch()
    with pytest.raises(OSError, match="final"):
        atomic.replace_folder(beside, final, re.compile("file"))
    assert (final / "precious").exists()


def test_a_full_disk_is_told_with_the_file_that_was_written(tmp_path):
    def write():
        with atomic.replacing(tmp_path / "file"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write raises it, without a name

    with pytest.raises(MachineFault, match=rf"^{tmp_path / 'file'}: the disk is full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_is_told_by_its_own_name(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "file"):
        with pytest.raises(OSError, match=r"directory") as told:
            atomic.write_text(path, "text")
        assert told.value.filename == str(path)
