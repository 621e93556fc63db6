"""A scheduler with two nodes and CelebA-shaped data for all tests of the batch scripts."""

import pytest
from batch_jobs import Cluster
from scheduler import Scheduler
from support.celeba_tree import write_celeba
from support.running import run_module


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    source = write_celeba(folder / "celeba")
    shards = folder / "shards"
    options = ["--size", "16", "--shard-images", "20", "--workers", "1"]
    done = run_module("data_shards", "build", "celeba", "--source", str(source), "--out", str(shards), *options)
    assert done.returncode == 0, done.stderr
    scheduler = Scheduler(folder / "scheduler")
    try:
        scheduler.start()
        yield Cluster(scheduler=scheduler, folder=folder, source=source, shards=shards)
    finally:
        scheduler.stop()
