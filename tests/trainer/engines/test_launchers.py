"""With every launcher a run ends in the weights of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import ROOT, free_port
from support.training import FIFTY_UPDATES, events, largest_relative_difference, train, weights, words

from trainer.process_group import process_group

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
}


@pytest.fixture(scope="module")
def one_process(digits_shards, tmp_path_factory):
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "one", **FIFTY_UPDATES)


def run_together(commands: list[tuple[list[str], dict[str, str]]]) -> None:
    """Starts all (command, environment) at once and checks that each ends with exit code 0."""
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT | env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command, env in commands
    ]
    try:
        for process in started:
            _, complaint = process.communicate(timeout=600)
            assert process.returncode == 0, complaint[-4000:]
    finally:
        for process in started:
            process.kill()


def assert_equal_to_one_process(run: Path, one_process: Path) -> None:
    assert events(run, "stage_end")[0]["images"] == events(one_process, "stage_end")[0]["images"]
    assert largest_relative_difference(weights(one_process), weights(run)) < 1e-4


def test_two_nodes_of_torchrun_with_a_rendezvous(digits_shards, tmp_path, one_process):
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    agent += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=loopback", "--local-addr=127.0.0.1"]
    command = [*agent, "-m", "trainer", *words(digits_shards, tmp_path, "nodes", **FIFTY_UPDATES)]
    run_together([(command, {})] * 2)
    assert_equal_to_one_process(tmp_path / "nodes", one_process)


def test_one_task_per_rank_with_the_environment_of_srun(digits_shards, tmp_path, one_process):
    command = [sys.executable, "-m", "trainer", *words(digits_shards, tmp_path, "tasks", **FIFTY_UPDATES)]
    # One task on each of two nodes; a batch script sets the two MASTER variables itself.
    shared = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    tasks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"} for rank in range(2)]
    run_together([(command, shared | task) for task in tasks])
    assert_equal_to_one_process(tmp_path / "tasks", one_process)


@pytest.mark.skipif(os.geteuid() != 0, reason="a /dev/shm of one's own takes root")
def test_processes_without_shared_memory_as_on_two_machines(digits_shards, tmp_path, one_process):
    apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$0" "$@"']
    command = [*apart, sys.executable, "-m", "trainer", *words(digits_shards, tmp_path, "apart", **FIFTY_UPDATES)]
    shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    run_together([(command, shared | {"RANK": str(rank)}) for rank in range(2)])
    assert_equal_to_one_process(tmp_path / "apart", one_process)


def test_an_interactive_shell_inside_an_allocation_is_one_process(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    with process_group() as ranks:
        assert ranks.world_size == 1


def test_deepspeeds_launcher_gives_the_weights_of_one_process(digits_shards, tmp_path, one_process):
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    command = [launcher, "--num_gpus=2", f"--master_port={free_port()}", "--module", "trainer"]
    # The launcher looks for the interpreter on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run_together([([*command, *words(digits_shards, tmp_path, "launched", **FIFTY_UPDATES)], {"PATH": path})])
    assert_equal_to_one_process(tmp_path / "launched", one_process)
