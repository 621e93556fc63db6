"""`ray up`, a sweep, the loss of a host and `ray down`, for real, on three hosts that are namespaces with sshd.

The tests follow one cluster through its life, in the order of the file. Started by `make test-cluster`.
"""

import json
import shutil

import pytest
from cluster_hosts import Network, missing, wait_until
from cluster_ray_up import PROJECT, RayUp

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000)]

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

# Two processes of two CPUs each: a trial takes two of the three hosts, and a lost one leaves enough for it.
SWEEP = """
name: three-hosts
runs: /mnt/sweeps/runs
base: trainer/configs/fashion_mnist.yaml
fields:
  data.shards: /mnt/sweeps/shards
  data.global_batch: 50
  data.valid_images: 100
  model.encoder_channels: [8]
  model.decoder_channels: [8, 8]
  model.hidden: 16
  stage1.max_epochs: 30
  stage1.eps: 0
  stage1.check_images: 2000
  stage2.max_epochs: 10
  stage2.eps: 0
  stage2.check_images: 2000
  checkpoint.every_images: 1000
  log.to: []
space:
  model.latent_dim: {choice: [2, 4]}
search: grid
workers: 2
cpus_per_worker: 2
stopping: {scheduler: none}
measure: {images: 0}
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
    wait_until(lambda: cluster.with_raylet() == set(network.hosts), seconds=600, what="Ray on all three hosts")
    return cluster


def test_every_host_joins_and_runs_the_project_that_was_sent_to_it(cluster, network):
    (network.shared / "where.py").write_text(WHERE_TASKS_RUN)
    home = network.hosts["head"].run("sh", "-c", "echo ~root").strip()

    def places() -> dict[str, str]:
        return dict(json.loads(cluster.on_head("python /mnt/sweeps/where.py").splitlines()[-1]))

    expected = dict.fromkeys(network.hosts, f"{home}/two-stage-sigma-vae/tune")
    wait_until(lambda: len(places()) == 3, seconds=300, what="three hosts in Ray's list")
    assert places() == expected


def test_after_the_loss_of_a_host_its_trial_continues_from_its_checkpoint(cluster, network, digits_shards):
    shutil.copytree(digits_shards, network.shared / "shards")
    (network.shared / "sweep.yaml").write_text(SWEEP)
    trials = network.shared / "runs" / "three-hosts" / "trials"
    first = trials / "search-000-seed0"

    def checkpoints() -> list[int]:
        return sorted(int(mark.parent.name) for mark in first.glob("checkpoints/*/COMPLETE"))

    def trains(name: str) -> bool:
        return any(
            "ray::ImplicitFunc" in command or "ray::Peer" in command for command in network.hosts[name].commands()
        )

    def attempts() -> list[str]:
        """The host of the first process, for each time that the trial was started."""
        return [json.loads(line)["host"] for line in (first / "attempts.jsonl").read_text().splitlines()]

    command = f"cd {PROJECT} && python -m tune --config /mnt/sweeps/sweep.yaml --address auto"
    log = network.folder / "sweep.log"
    with cluster.started("exec", command, log=log) as sweep:
        wait_until(
            lambda: sweep.poll() is not None or max(checkpoints(), default=0) >= 5000,
            seconds=600,
            what="5000 images of the first trial",
        )
        assert sweep.poll() is None, log.read_text()
        lost = next(name for name in ("one", "two") if trains(name))
        network.hosts[lost].lose()
        reached = checkpoints()[-1]
        assert sweep.wait(timeout=900) == 0, log.read_text()

    assert len(attempts()) > 1
    assert attempts()[-1] != lost
    events = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    resumed = [event["images"] for event in events if event["event"] == "resume"]
    assert resumed
    assert min(resumed) >= reached
    ends = {path.parent.name: json.loads(path.read_text())["status"] for path in trials.glob("*/outcome.json")}
    assert ends == {"search-000-seed0": "finished", "search-001-seed0": "finished"}

    copied = network.folder / "copied"
    cluster.ray("rsync-down", "/mnt/sweeps/runs/three-hosts/sweep.html", str(copied))
    assert "search-001-seed0" in copied.read_text()


def test_ray_down_ends_ray_on_every_host(cluster):
    cluster.down()
    wait_until(lambda: not cluster.with_raylet(), seconds=300, what="the end of Ray on every host")
