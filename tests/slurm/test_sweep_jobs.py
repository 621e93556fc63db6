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
