"""Whatever goes wrong with one process of a job, all end within seconds, and each says in one line what it was.

Each test starts real processes and no launcher, which would end the others too.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import Ended, environments, plain_environment, run_job, start_job, wait_for_job
from support.running import ROOT, free_port

WORKER = str(Path(__file__).with_name("job_worker.py"))


def run(*what: str) -> list[Ended]:
    return run_job([[WORKER, each] for each in what])


def test_nothing_is_printed_where_nothing_goes_wrong():
    for ended in run("fine", "fine", "fine"):
        assert (ended.code, ended.out, ended.lines) == (0, "met\ndone\n", [])


@pytest.mark.parametrize(
    ("what", "own", "told"),
    [
        ("wrong command", "error: field: is wrong", "field: is wrong"),
        pytest.param(
            "bad file",
            "error: field: file.bin is damaged",
            "field: file.bin is damaged",
            marks=pytest.mark.slow,
        ),
        pytest.param("no gpu", "error: device: cuda", "device: cuda is requested", marks=pytest.mark.slow),
        pytest.param("input", "error: field: found later", "field: found later", marks=pytest.mark.slow),
    ],
)
def test_wrong_input_of_one_process_is_told_to_all(what, own, told):
    zero, one = run("fine", what)
    assert (zero.code, one.code) == (2, 2)
    assert len(one.lines) == len(zero.lines) == 1
    assert one.lines[0].startswith(own)
    assert re.match(rf"error: rank 1 on \S+: {re.escape(told)}", zero.lines[0])


@pytest.mark.slow
def test_wrong_input_of_the_process_that_the_others_connect_to_is_told_to_all():
    zero, *others = run("wrong command", "fine", "fine")
    assert (zero.code, zero.lines) == (2, ["error: field: is wrong"])
    for other in others:
        assert other.code == 2
        assert len(other.lines) == 1
        assert other.lines[0].startswith("error: rank 0 on ")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["wrong command", "bad file"])
def test_a_mistake_that_all_processes_find_is_printed_once(what):
    zero, one = run(what, what)
    assert (zero.code, len(zero.lines)) == (2, 1)
    assert (one.code, one.lines) == (2, [])


@pytest.mark.slow
def test_processes_with_different_options_all_say_which():
    zero, one = run("fine", "other options")
    assert zero.code == one.code == 2
    assert zero.lines == one.lines
    assert re.match(r"error: n differs between processes: 4 on rank 0 on \S+; 5 on rank 1 on \S+;", zero.lines[0])


@pytest.mark.parametrize(
    ("what", "victim"),
    [
        ("kill", 0),
        pytest.param("kill", 1, marks=pytest.mark.slow),
        pytest.param("crash", 1, marks=pytest.mark.slow),
        pytest.param("crash", 0, marks=pytest.mark.slow),
        pytest.param("exit", 1, marks=pytest.mark.slow),
        pytest.param("crash at once", 1, marks=pytest.mark.slow),
    ],
)
def test_the_others_of_a_lost_process_end_and_name_it(what, victim):
    processes = start_job([[WORKER, what if rank == victim else "fine"] for rank in range(3)])
    ends = wait_for_job(processes)
    for rank, ended in enumerate(ends):
        if rank != victim:
            assert ended.code == 1
            assert len(ended.lines) == 1, ended.lines
            cause = {"crash": "KeyError: 'late'", "crash at once": "KeyError: 'early'"}.get(what, "killed or crashed")
            assert re.match(rf"error: rank {victim} on \S+: .*{re.escape(cause)}", ended.lines[0])


@pytest.mark.slow
def test_a_process_that_is_outside_any_collective_is_ended_too():
    processes = start_job([[WORKER, "sleep"], [WORKER, "crash"]])
    processes[1].wait(timeout=300)
    zero, one = wait_for_job(processes, timeout=60)  # of 100 s of sleep
    assert (zero.code, len(zero.lines)) == (1, 1)
    assert one.code == 1


@pytest.mark.slow
def test_a_process_that_never_comes_is_named():
    ended = run_job([[WORKER, "fine"]], [environments(2)[0] | {"START_SECONDS": "15"}])[0]
    assert ended.code == 2
    assert ended.notices[0] == "waiting for ranks 1 of 2 processes to start"
    assert ended.lines[-1].startswith("error: rank 1 of 2 did not come within 15 s")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a host name of one's own takes root")
@pytest.mark.parametrize("what", ["kill", "stop"])
def test_the_loss_of_another_machine_is_noticed_within_30_seconds(what):
    # A stopped process is like a machine without power: its connections stay open, and nothing comes.
    apart = [
        "-c",
        "import os, sys; os.execvp('unshare', ['unshare', '--uts', 'sh', '-c', "
        '\'hostname far && exec "$0" "$@"\', sys.executable, *sys.argv[1:]])',
    ]
    processes = start_job([[WORKER, "fine"], [*apart, WORKER, what]])
    try:
        assert processes[1].stdout.readline() == "met\n"
        _, complaint = processes[0].communicate(timeout=30)
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 1
    assert re.fullmatch(r"error: rank 1 on far: no sign of life for \d+ s\n", complaint)


@pytest.mark.slow
def test_a_process_to_which_rank_0_does_not_come_says_so():
    ended = run_job([[WORKER, "fine"]], [environments(2)[1] | {"START_SECONDS": "15"}])[0]
    assert ended.code == 2
    assert re.match(r"rank 1 of 2 waits for rank 0 at 127.0.0.1:\d+, at most 15 s$", ended.notices[0])
    assert re.match(r"error: MASTER_ADDR: nobody answers at 127.0.0.1:\d+ ", ended.lines[-1])
    assert (len(ended.notices), len(ended.lines)) == (1, 1)


@pytest.mark.slow
def test_the_variables_of_mpirun_make_a_job_where_an_address_is_set():
    shared = {"OMPI_COMM_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = [shared | {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": str(rank)} for rank in range(2)]
    assert [ended.out for ended in run_job([[WORKER, "fine"]] * 2, ranks)] == ["met\ndone\n"] * 2


@pytest.mark.slow
def test_the_former_launcher_of_torch_works():
    launcher = ["-m", "torch.distributed.launch", "--nproc-per-node=2", f"--master-port={free_port()}"]
    done = subprocess.run(
        [sys.executable, *launcher, WORKER, "fine"],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.count("done") == 2, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "field"),
    [(["eval", "encode", "--split", "valid"], "split"), (["trainer.mixture", "--components", "3"], "n_components")],
)
def test_other_commands_compare_their_options_too(digits_run, tmp_path, command, field):
    run = tmp_path / "digits"
    shutil.copytree(digits_run, run)
    own = ["-m", *command, "--run", str(run)]
    zero, one = run_job([own, [*own[:-3], "4" if field == "n_components" else "test", *own[-2:]]])
    for ended in (zero, one):
        assert ended.code == 2
        assert re.match(rf"error: {field} differs between processes: ", ended.lines[0])
        assert len(ended.lines) == 1


@pytest.mark.slow
def test_a_run_that_is_missing_is_told_once_by_each_process(tmp_path):
    for command in (["eval", "encode"], ["trainer.mixture"]):
        for ended in run_job([["-m", *command, "--run", str(tmp_path)]] * 2):
            assert ended.code == 2
            assert [line for line in ended.lines if str(tmp_path) in line] == ended.lines
