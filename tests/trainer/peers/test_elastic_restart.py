"""torchrun starts a job again whose process was lost, and a new start of the same command does so in any case."""

import subprocess
import sys
import time

import psutil
import pytest
import torch
from support.jobs import plain_environment
from support.running import ROOT, run_module
from support.training import events, train, weights, words

from trainer.run_folder.checkpoint import complete_checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [2, 0], ids=["by torchrun", "by a new start"])
def test_a_job_that_lost_a_process_ends_in_the_same_bits_after_a_restart(digits_shards, tmp_path, restarts):
    whole = weights(train(digits_shards, tmp_path, "whole", processes=2))
    own = words(digits_shards, tmp_path, "lost", checkpoint__keep_last=100)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}", "-m"]
    job = subprocess.Popen(
        [sys.executable, "-m", *launcher, "trainer", *own],
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(complete_checkpoints(tmp_path / "lost")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    psutil.Process(job.pid).children()[-1].kill()
    _, complaint = job.communicate(timeout=120)
    if restarts:
        assert job.returncode == 0, complaint[-3000:]
    else:
        assert job.returncode != 0
        again = run_module("trainer", *own, processes=2)
        assert again.returncode == 0, again.stderr[-3000:]
    assert events(tmp_path / "lost", "resume")
    found = weights(tmp_path / "lost")
    assert all(torch.equal(found[name], whole[name]) for name in whole)
