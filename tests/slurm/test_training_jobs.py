"""slurm/train_celeba.sh on a real scheduler with two nodes."""

import pytest
from batch_jobs import Cluster

from trainer.checkpoint import complete_checkpoints, read_state

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster):
    """A run that nothing interrupted."""
    job = cluster.train("undisturbed")
    cluster.finish(job)
    return cluster.runs / "undisturbed"


def test_two_nodes_train_both_stages(cluster: Cluster, undisturbed):
    state = read_state(complete_checkpoints(undisturbed)[-1])
    assert state["world_size"] == 2
    assert state["stages"]["stage"] == 2
    assert state["stages"]["ended"] == "cap"
