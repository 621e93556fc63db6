"""The group of processes: leaving it, and failing together."""

import os
import subprocess
import sys

from support.running import ROOT

# What DeepSpeed does: a group of its own, to which something refers until the interpreter has shut down.
KEPT = """
import torch
import torch.distributed as dist
from trainer.process_group import process_group

with process_group() as ranks:
    kept = dist.new_group(list(range(ranks.world_size))), dist.group.WORLD
    for group in kept * 10:
        dist.all_reduce(torch.ones(4), group=group)
"""


def test_processes_exit_without_error_if_something_keeps_their_group():
    # More processes than processors, so that threads are often interrupted just before they finish.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8", "--no-python"]
    done = subprocess.run(
        [*launcher, sys.executable, "-c", KEPT],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
