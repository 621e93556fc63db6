"""A sweep on machines of unlike size, through Ray: a trial that is too large for each of them is divided among them."""

import json
import subprocess
import sys

import pytest
from support.sweep_cases import write_sweep
from test_sweep import by_name, environment
from test_sweep_faults import end

from trainer.run_folder.checkpoint import complete_checkpoints, read_state
from tune.sweep_config import read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

SCRIPT = """
import json, sys, threading, time

import ray
import ray._private.state
from ray.cluster_utils import Cluster

from tune.sweep import run_sweep
from tune.sweep_config import read_sweep

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
cluster.add_node(num_cpus=3)
ray.init(address=cluster.address, log_to_driver=False)
least = [9.0]


def watch():
    while True:
        free = ray._private.state.available_resources_per_node().values()
        least.append(min(least[-1], sum(node.get("CPU", 0) for node in free)))
        time.sleep(0.1)


threading.Thread(target=watch, daemon=True).start()
run_sweep(read_sweep(sys.argv[1]), cluster.address)
print(json.dumps(least[-1]))
ray.shutdown()
cluster.shutdown()
"""


def test_a_trial_is_divided_among_machines_of_one_and_of_three_cpus(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, workers=4, cpus_per_worker=1, concurrent=0)
    script, log = tmp_path / "unlike.py", tmp_path / "log"
    script.write_text(SCRIPT)
    with log.open("w") as file:
        command = subprocess.Popen(
            [sys.executable, str(script), str(path)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
            text=True,
        )
        try:
            output, _ = command.communicate(timeout=800)
        finally:
            end(command)
    assert command.returncode == 0, log.read_text()
    assert json.loads(output.splitlines()[-1]) == 0  # every CPU of both was taken
    assert [record.status for record in by_name(path).values()] == ["finished", "finished"]
    for folder in read_sweep(path).trials_folder.iterdir():
        assert read_state(complete_checkpoints(folder)[-1]).world_size == 4
