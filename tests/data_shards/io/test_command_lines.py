"""Commands at the edges of what a shell gives them: misspelt or empty words, paths that cannot be, odd streams."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import ROOT

from data_shards.io.errors import OneLineParser, command

PRINTS = """
import sys
import time
from data_shards.io.errors import command
def main():
    for line in range(20_000):
        print("line", line)
    open(sys.argv[1], "w").write("done")
sys.exit(command(main))
"""


def _parser():
    parser = OneLineParser(prog="prog")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build")
    build.add_argument("place", type=Path, metavar="SOURCE")
    build.add_argument("--size", type=int)
    build.add_argument("--background")
    commands.add_parser("verify")
    return parser


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["biuld"], "did you mean build?"),
        (["build", "images", "--szie", "8"], "did you mean --size?"),
        (["build", "images", "--back", "red"], "unrecognized arguments: --back"),
        (["build", ""], "SOURCE: empty"),
        (["build", "images", "--background", " "], "--background: empty"),
        (["build", "s3://bucket/images"], "SOURCE: s3://bucket/images is an address"),
        (["build", "https://example.org/a.zip"], "SOURCE: https://example.org/a.zip is an address"),
        (["build", "~nobody-of-that-name/images"], "SOURCE: ~nobody-of-that-name/images: there is no user nobody-of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_word_that_cannot_be_meant_is_named(words, said, capsys):
    assert command(lambda: _parser().parse_args(words)) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("kind", [Path, None])
def test_the_home_folder_is_meant_where_the_shell_leaves_its_sign(kind, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = OneLineParser()
    parser.add_argument("--out", type=kind)
    parser.add_argument("sets", nargs="*", type=kind)
    asked = parser.parse_args(["--out=~/shards", "~", "~x.png", "a~/b"])
    assert str(asked.out) == "/home/me/shards"
    assert list(map(str, asked.sets)) == ["/home/me", "~x.png", "a~/b"]


@pytest.mark.parametrize(
    "number", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP]
)
def test_a_path_that_cannot_be_is_one_line_and_exit_code_2(number, capsys):
    def main():
        raise OSError(number, os.strerror(number), "runs/mine")

    assert command(main) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: runs/mine: ")
    assert line.count("\n") == 1


def test_a_command_whose_folder_is_gone_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert command(lambda: print("never")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: the folder in which this was started does not exist any more: change to one that does\n"


@pytest.mark.parametrize("module", ["data_shards", "trainer", "trainer.mixture", "trainer.flow", "eval", "tune"])
def test_every_command_whose_folder_is_gone_is_one_line_also_where_it_begins_with_torch(module, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [
        sys.executable,
        "-c",
        f"import os, runpy; os.rmdir(os.getcwd()); runpy.run_module('{module}', None, '__main__')",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(words, cwd=gone, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    line = "error: the folder in which this was started does not exist any more: change to one that does\n"
    assert result.stderr == line


def test_a_link_to_itself_is_one_line(tmp_path, capsys):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert command(lambda: print(loop.resolve(strict=True))) == 2
    assert f"{loop}: a link leads back to itself" in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_work_goes_on_when_the_reader_of_its_output_goes(unbuffered, tmp_path):
    result = _shell(f'"$PYTHON" -c "$PRINTS" {tmp_path}/done | head -1; echo ${{PIPESTATUS[0]}}', unbuffered)
    assert result.stdout == "line 0\n0\n"
    assert result.stderr == ""
    assert (tmp_path / "done").read_text() == "done"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_does_not_fit_is_one_line_and_exit_code_1(unbuffered, tmp_path):
    result = _shell(f'"$PYTHON" -c "$PRINTS" {tmp_path}/done > /dev/full', unbuffered)
    assert result.returncode == 1
    assert result.stderr.startswith("error: output: the disk is full")
    assert result.stderr.count("\n") == 1


def test_files_do_not_get_the_output_of_a_command_whose_streams_are_closed(tmp_path):
    result = _shell(f'"$PYTHON" -c "$PRINTS" {tmp_path}/done <&- >&- 2>&-')
    assert result.returncode == 0
    assert (tmp_path / "done").read_text() == "done"


def _shell(line, unbuffered=""):
    environment = {**os.environ, "PYTHON": sys.executable, "PRINTS": PRINTS, "PYTHONUNBUFFERED": unbuffered}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "midway"),
    [
        (["data_shards"], "numpy"),
        (["eval", "report", "--help"], "trainer.group_command"),
        (["tune"], "numpy"),
        (["trainer.mixture"], "numpy"),
        (["trainer.flow"], "numpy"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_interrupt_while_a_command_starts_is_one_line(words, midway):
    command_line = [sys.executable, "-X", "importtime", "-m", *words]
    with subprocess.Popen(command_line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        for line in started.stderr:
            if line.rpartition("|")[2].strip() == midway:  # their other imports take a second and more
                break
        started.send_signal(signal.SIGINT)
        said = [line for line in started.stderr if not line.startswith("import time:")]
    assert started.returncode == 130
    assert said == ["interrupted; the same command goes on from here\n"]
