"""slurm/tune.sh: a sweep on a Ray cluster inside one allocation."""

import pytest
import yaml
from batch_jobs import FIELDS, Cluster, events

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture
def sweep(cluster: Cluster, tmp_path):
    """Two configurations of one second each."""
    shrunk = {name: yaml.safe_load(str(value)) for name, value in FIELDS.items()}
    path = tmp_path / "sweep.yaml"
    content = {
        "name": "sweep",
        "runs": str(tmp_path),
        "base": "trainer/configs/celeba_small.yaml",
        "fields": shrunk
        # The scheduler's GPUs are pretended ones.
        | {"device": "cpu", "data.shards": str(cluster.shards), "stage1.max_epochs": 1, "stage2.max_epochs": 1}
        | {"stage1.check_images": 240, "stage2.check_images": 240},
        "space": {"model.latent_dim": {"choice": [3, 5]}},
        "search": "grid",
        "concurrent": 2,
        "stopping": {"scheduler": "none"},
        "measure": {"images": 0},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_sweep_runs_on_two_nodes_and_the_job_ends_with_it(cluster: Cluster, sweep, tmp_path):
    resources = ["--nodes=2", "--gpus-per-node=1", "--cpus-per-task=1", "--time=30"]
    job = cluster.submit(resources, "tune.sh", SWEEP=sweep, RAY_AUTH_MODE="disabled")
    cluster.finish(job)
    trials = sorted((tmp_path / "sweep" / "trials").glob("*/config.yaml"))
    assert [yaml.safe_load(path.read_text())["model"]["latent_dim"] for path in trials] == [3, 5]
    assert all(events(path.parent, "stage_end")[-1]["stage"] == 2 for path in trials)
    assert "report: " in cluster.log(job)


def test_ray_has_the_gpus_that_each_node_was_given_also_where_they_differ(cluster: Cluster, sweep, tmp_path):
    """The scheduler's GPUs are empty files, so torch is made to count four, and the sweep is told that it sees none."""
    python = tmp_path / "python"
    real = cluster.script_env()["PYTHON"]
    python.write_text(f'#!/bin/bash\nif [[ "$*" == *device_count* ]]; then exec echo 4; fi\nexec {real} "$@"\n')
    python.chmod(0o755)
    content = yaml.safe_load(sweep.read_text())
    content |= {"fields": content["fields"] | {"device": "cuda"}, "workers": 3, "cpus_per_worker": 2, "concurrent": 0}
    sweep.write_text(yaml.safe_dump(content))
    resources = ["--nodes=2", "--gpus=3", "--cpus-per-task=2", "--time=30"]
    job = cluster.submit(resources, "tune.sh", SWEEP=sweep, DEVICE="", PYTHON=python, RAY_AUTH_MODE="disabled")
    cluster.finish(job, state="FAILED")
    needs = "cuda is requested: a trial needs 3 of 2 CPUs and 1 GPUs each"
    assert f"{needs}, but the machines have 2 CPUs and 2 GPUs; 2 CPUs and 1 GPUs" in cluster.log(job)
