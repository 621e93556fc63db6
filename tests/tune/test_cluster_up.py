"""`ray up`, a sweep, the loss of a host and `ray down`, for real, on three hosts that are namespaces with sshd.

The tests follow one cluster through its life, in the order of the file. Started by `make test-cluster`.
"""

import json

import pytest
from cluster_hosts import Network, missing, wait_until
from cluster_ray_up import RayUp

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WHERE_TASKS_RUN = """
import json, pathlib, socket
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

def place():
    import tune
    return socket.gethostname(), str(pathlib.Path(tune.__file__).parent)

ray.init(address="auto", log_to_driver=False)
tasks = [
    ray.remote(place).options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
    for node in ray.nodes() if node["Alive"]
]
print(json.dumps(ray.get(tasks)))
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    if missing():
        pytest.fail(missing(), pytrace=False)
    folder = tmp_path_factory.mktemp("cluster")
    shared = folder / "shared"
    shared.mkdir()
    with Network(folder, shared, ("head", "one", "two")) as network:
        yield network


@pytest.fixture(scope="module")
def cluster(network: Network) -> RayUp:
    cluster = RayUp.on(network)
    cluster.up()
    wait_until(lambda: cluster.with_raylet() == set(network.hosts), seconds=180, what="Ray on all three hosts")
    return cluster


def test_every_host_joins_and_runs_the_project_that_was_sent_to_it(cluster, network):
    (network.shared / "where.py").write_text(WHERE_TASKS_RUN)
    home = network.hosts["head"].run("sh", "-c", "echo ~root").strip()

    def places() -> dict[str, str]:
        return dict(json.loads(cluster.on_head("python /mnt/sweeps/where.py").splitlines()[-1]))

    expected = dict.fromkeys(network.hosts, f"{home}/two-stage-sigma-vae/tune")
    wait_until(lambda: len(places()) == 3, seconds=60, what="three hosts in Ray's list")
    assert places() == expected


def test_ray_down_ends_ray_on_every_host(cluster):
    cluster.down()
    wait_until(lambda: not cluster.with_raylet(), seconds=120, what="the end of Ray on every host")
