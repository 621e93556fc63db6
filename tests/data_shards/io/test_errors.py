"""One-line errors of commands."""

import errno
import os
import pickle

import pytest

from data_shards.io.errors import InputError, OneLineParser, at_least, command


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
