"""One-line errors of commands."""

import errno
import io
import os
import pickle
import pwd
from pathlib import Path

import pytest

from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError, MachineFault, OneLineParser, at_least, command, machine_faults


def test_wrong_input_is_one_line_and_exit_code_2(capsys):
    def main():
        raise InputError("field: wrong;\n  right would be 1")

    assert command(main) == 2
    assert capsys.readouterr().err == "error: field: wrong; right would be 1\n"


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EMFILE, "too many open files in this process"),
        (errno.EIO, "the disk does not read or write"),
    ],
)
def test_a_fault_of_the_machine_is_one_line_and_exit_code_1(number, fault, capsys):
    def main():
        raise OSError(number, os.strerror(number), "shards/train.tar")

    assert command(main) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: shards/train.tar: {fault}")
    assert line.count("\n") == 1


def test_a_fault_without_a_file_of_its_own_gets_the_name_of_what_was_worked_on():
    with pytest.raises(MachineFault, match=r"^cache/train\.tar: the disk is full"), machine_faults("cache/train.tar"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_of_another_kind_is_no_fault_of_the_machine():
    with pytest.raises(FileNotFoundError), machine_faults("cache"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "train.tar")


def test_a_working_folder_that_is_removed_meanwhile_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def main():
        tmp_path.rmdir()
        print(Path("out").resolve())

    assert command(main) == 2
    said = capsys.readouterr().err
    assert said == "error: the folder in which this was started does not exist any more: change to one that does\n"


def test_a_user_without_a_home_directory_is_asked_for_a_place_of_the_cache(monkeypatch, capsys):
    for name in ("HOME", "XDG_CACHE_HOME", "SIGMA_VAE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    assert command(lambda: print(cache_folder("shards"))) == 2
    assert "this user has no home directory; set HOME or SIGMA_VAE_CACHE" in capsys.readouterr().err


def test_a_fault_of_the_machine_comes_back_whole_from_another_process():
    fault = pickle.loads(pickle.dumps(MachineFault("cache: the disk is full")))  # noqa: S301
    assert isinstance(fault, MachineFault)
    assert str(fault) == "cache: the disk is full"


def test_a_defect_keeps_its_traceback():
    def main():
        raise OSError(errno.EINVAL, "what is this")

    with pytest.raises(OSError, match="what is this"):
        command(main)


def test_success_is_exit_code_0():
    assert command(lambda: None) == 0


def test_an_input_error_is_a_value_error_that_begins_with_the_parameter():
    error = InputError("0 is wrong; use 1", parameter="n")
    assert isinstance(error, ValueError)
    assert str(error) == "n: 0 is wrong; use 1"
    assert error.parameter == "n"


def test_an_input_error_comes_back_whole_from_another_process():
    error = pickle.loads(pickle.dumps(InputError("wrong", parameter="n")))  # noqa: S301
    assert (str(error), error.parameter) == ("n: wrong", "n")


def _parser():
    parser = OneLineParser(prog="prog")
    parser.add_argument("--workers", "-w", dest="processes")
    commands = parser.add_subparsers(dest="command")
    for name, option in (("one", "--n"), ("two", "--number")):
        commands.add_parser(name).add_argument(option, dest="n")
    return parser


@pytest.mark.parametrize(
    ("words", "parameter", "line"),
    [
        (["one"], "n", "error: --n: wrong\n"),
        (["two"], "n", "error: --number: wrong\n"),
        (["one"], "processes", "error: --workers: wrong\n"),
        (["one"], "unknown", "error: unknown: wrong\n"),
        (["one"], None, "error: wrong\n"),
    ],
)
def test_a_command_names_its_own_option_for_the_parameter(words, parameter, line, capsys):
    def main():
        _parser().parse_args(words)
        raise InputError("wrong", parameter=parameter)

    assert command(main) == 2
    assert capsys.readouterr().err == line


def test_a_command_prints_file_names_of_any_bytes(monkeypatch):
    terminal = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(terminal, encoding="utf-8", write_through=True))
    assert command(lambda: print(os.fsdecode(b"caf\xe9.png"))) == 0
    assert terminal.getvalue() == b"caf\\udce9.png\n"


def test_options_of_a_former_command_are_forgotten(capsys):
    command(lambda: _parser().parse_args(["one"]))

    def main():
        raise InputError("wrong", parameter="n")

    assert command(main) == 2
    assert capsys.readouterr().err == "error: n: wrong\n"


def test_the_first_value_that_is_too_small_is_named():
    at_least(1, images=1, shards=2)
    with pytest.raises(InputError, match="shards: 0 is not a whole number of at least 1"):
        at_least(1, images=1, shards=0)
