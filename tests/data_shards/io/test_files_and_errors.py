"""Atomic files, one-line errors, progress lines."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from data_shards.io import atomic
from data_shards.io.errors import InputError, command
from data_shards.io.progress import Progress, duration


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


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "file", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_process_killed_while_writing_leaves_former_or_new_content_and_nothing_between(tmp_path):
    path = tmp_path / "file"
    contents = {letter * 200_000 for letter in "ab"}
    atomic.write_text(path, "a" * 200_000)
    code = (
        "import itertools, sys, pathlib; from data_shards import atomic\n"
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


def test_a_folder_takes_the_place_of_ruins(tmp_path):
    final, beside = tmp_path / "final", tmp_path / "beside"
    for folder, text in ((final, "ruin"), (beside, "whole")):
        folder.mkdir()
        (folder / "file").write_text(text)
    atomic.replace_folder(beside, final)
    assert (final / "file").read_text() == "whole"
    assert not beside.exists()


def test_wrong_input_is_one_line_and_exit_code_2(capsys):
    def main():
        raise InputError("field: wrong;\n  right would be 1")

    assert command(main) == 2
    assert capsys.readouterr().err == "error: field: wrong; right would be 1\n"


def test_a_full_disk_is_one_line_and_exit_code_2(capsys):
    def main():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shards/train.tar")

    assert command(main) == 2
    assert capsys.readouterr().err.startswith("error: shards/train.tar: the disk is full")


def test_a_defect_keeps_its_traceback():
    def main():
        raise OSError(errno.EINVAL, "what is this")

    with pytest.raises(OSError, match="what is this"):
        command(main)


def test_success_is_exit_code_0():
    assert command(lambda: None) == 0


def test_progress_away_from_a_terminal_ends_with_a_line_of_all_facts(capsys):
    with Progress("build", 1000) as bar:
        bar.update(0)
        time.sleep(0.01)
        bar.update(1000, bad=3)
    line = capsys.readouterr().err
    assert line.startswith("build  1,000 of 1,000 images  ")
    assert "images/s  bad 3  0s left\n" in line


def test_a_rank_that_does_not_show_says_nothing(capsys):
    with Progress("build", 10, show=False) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.4, "59s"), (185, "3m05s"), (4020, "1h07m")])
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text
