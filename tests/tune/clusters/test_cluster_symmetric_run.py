"""The command that tune/clusters/slurm.yaml gives for an allocation, started on all hosts at once as srun does it."""

import json
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster_hosts import Host, Network, missing
from cluster_ray_up import PROJECT
from support.running import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

COUNT_NODES = """
import json
import ray

ray.init(address="auto", log_to_driver=False)
print(json.dumps([len(ray.nodes()), ray.cluster_resources()["CPU"]]))
"""


def batch_command() -> str:
    """What follows srun's own options in the file's header, up to the command that Ray is to run."""
    lines = (ROOT / "tune" / "clusters" / "slurm.yaml").read_text().splitlines()
    text = "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    return text[text.index("ray symmetric-run") : text.index("python -m tune")]


def test_one_command_on_all_nodes_starts_ray_runs_the_job_once_and_ends_ray(tmp_path):
    if missing():
        pytest.fail(missing(), pytrace=False)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "count.py").write_text(COUNT_NODES)
    with Network(tmp_path, shared, ("node1", "node2")) as network:
        given = {
            "first_node": network.hosts["node1"].address,
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "2",
            "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "300",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            # These hosts share no home folder that the token could lie in.
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        before = "; ".join(f"export {name}={value}" for name, value in given.items())
        path = f"export PATH={PROJECT}/.venv/bin:$PATH"
        script = f"{before}; {path}; {batch_command()} python /mnt/sweeps/count.py"

        def start(host: Host) -> list[str]:
            try:
                return host.run("bash", "--login", "-c", script, timeout=600).splitlines()
            except subprocess.CalledProcessError as error:
                print(host.name, error.stdout, error.stderr)
                raise

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(start, network.hosts.values())
        assert json.dumps([2, 4.0]) in first
        assert json.dumps([2, 4.0]) not in second
        for host in network.hosts.values():
            assert not any("raylet" in command for command in host.commands())
