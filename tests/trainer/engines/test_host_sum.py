"""Sums over processes in shared memory."""

import os
import subprocess
import sys

import pytest
from support.running import ROOT, free_port

SUMS = """
import sys
import time
from pathlib import Path
import torch
from trainer.engines import cpu
from trainer.process_group import process_group

def numbers(rank, turn):
    generator = torch.Generator().manual_seed(100 * rank + turn)
    image = torch.randn(2, 3, 5, 4, generator=generator).to(memory_format=torch.channels_last)
    return [torch.randn(7, 11, generator=generator), image, torch.randn(1, generator=generator)]

with process_group() as ranks:
    folder = Path(sys.argv[1]) / (str(ranks.rank) if sys.argv[2] == "apart" else "")
    folder.mkdir(exist_ok=True)
    cpu.SHARED_FOLDER = folder
    shared = cpu.open_host_sum(ranks, 77 + 120 + 1)
    ranks.barrier()
    assert list(folder.glob("sigma-vae-*")) == []
    assert (shared is None) == (sys.argv[2] == "apart")
    for turn in range(20 if shared else 0):
        expected = numbers(0, turn)
        for rank in range(1, ranks.world_size):
            expected = [one + other for one, other in zip(expected, numbers(rank, turn))]
        if (turn, ranks.rank) == (5, 1):
            time.sleep(2.5)  # the others check that it is alive
        found, totals = numbers(ranks.rank, turn), torch.tensor([1.0, ranks.rank])
        shared.sum_(found, totals)
        assert all(map(torch.equal, found, expected))
        assert totals.tolist() == [ranks.world_size, sum(range(ranks.world_size))]
    assert cpu.open_host_sum(ranks, 2**30) is None
    print("checked")
"""


# Rank 1 is killed, and no launcher ends rank 0, as torchrun would.
KILLED = """
import os, signal, sys
from trainer.engines import cpu
from trainer.process_group import process_group
import torch

with process_group() as ranks:
    shared = cpu.open_host_sum(ranks, 1)
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    shared.sum_([torch.ones(1)], torch.zeros(1))
"""


def run(processes: int, *words: str) -> subprocess.CompletedProcess:
    """Runs SUMS on several processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*launcher, "--no-python", sys.executable, "-c", SUMS, *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("processes", [2, 3])
def test_sums_equal_a_loop_over_ranks_bit_by_bit_and_leave_no_file(tmp_path, processes):
    done = run(processes, str(tmp_path), "together")
    assert done.stdout.count("checked") == processes, done.stderr[-4000:]


def test_no_process_uses_the_memory_if_one_does_not_see_it(tmp_path):
    done = run(2, str(tmp_path), "apart")
    assert done.stdout.count("checked") == 2, done.stderr[-4000:]


def test_a_process_waiting_for_a_killed_one_ends_and_names_its_rank():
    shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED],
            cwd=ROOT,
            env=os.environ | shared | {"OMP_NUM_THREADS": "1", "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        _, complaint = both[0].communicate(timeout=600)
    finally:
        for process in both:
            process.kill()
    assert both[0].returncode == 1
    (line,) = [line for line in complaint.splitlines() if not line.startswith("waiting for ranks")]
    assert line.startswith("error: rank 1 on ")
