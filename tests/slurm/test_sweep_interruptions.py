"""slurm/tune.sh where something goes wrong: Ray does not start or is not complete, ports are taken, USR2 comes."""

import re

import pytest
import yaml
from batch_jobs import FIELDS, Cluster, events
from scheduler import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
ONE_NODE = ["--nodes=1", "--gpus-per-node=1", "--cpus-per-task=1", "--time=30"]


def sweep(cluster: Cluster, folder, **fields):
    """A sweep of one configuration."""
    folder.mkdir(exist_ok=True)
    shrunk = {name: yaml.safe_load(str(value)) for name, value in FIELDS.items()}
    content = {
        "name": "sweep",
        "runs": str(folder),
        "base": "trainer/configs/celeba_small.yaml",
        "fields": shrunk | {"data.shards": str(cluster.shards), "device": "cpu"} | fields,
        "space": {"model.latent_dim": {"choice": [3]}},
        "search": "grid",
        "stopping": {"scheduler": "none"},
        "measure": {"images": 0},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def submit(cluster: Cluster, file, options=ONE_NODE, **variables) -> str:
    return cluster.submit(options, "tune.sh", SWEEP=file, RAY_AUTH_MODE="disabled", **variables)


def last_line(cluster: Cluster, job: str) -> str:
    return [line for line in cluster.log(job).splitlines() if line.startswith("error: ")][-1]


def test_a_head_that_cannot_start_ends_the_job_with_one_line(cluster: Cluster, tmp_path):
    job = submit(cluster, sweep(cluster, tmp_path), RAY_FOLDER="/proc/nowhere")
    cluster.scheduler.wait_until(job, "FAILED", seconds=200)
    assert re.search(
        r"slurm/tune.sh: Ray's head did not start on n\d; its own message stands above", last_line(cluster, job)
    )
    assert not (tmp_path / "sweep").exists()


def test_nodes_that_do_not_join_end_the_job_with_one_line(cluster: Cluster, tmp_path):
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/bash\nif [[ "$*" == *slurm/ray_node.py* && "$*" != *--head* ]]; then exec sleep 300; fi\n'
        f'exec {cluster.script_env()["PYTHON"]} "$@"\n'
    )
    python.chmod(0o755)
    options = ["--nodes=2", *ONE_NODE[1:]]
    job = submit(cluster, sweep(cluster, tmp_path), options, PYTHON=python, RAY_WAIT=60)
    cluster.scheduler.wait_until(job, "FAILED", seconds=300)
    assert "1 of 2 nodes have joined Ray: " in cluster.log(job)
    assert "the Ray cluster is not complete after 60 s" in last_line(cluster, job)


def test_usr2_lets_running_trials_save_and_the_sweep_goes_on_from_there(cluster: Cluster, tmp_path):
    job = submit(cluster, sweep(cluster, tmp_path, **{"stage2.max_epochs": 40, "checkpoint.every_images": 10**6}))
    (trial,) = wait_for(lambda: list((tmp_path / "sweep" / "trials").glob("*0*")), "the trial starts", 200)
    wait_for(lambda: [event for event in events(trial, "train") if event["stage"] == 2], "stage 2", 200)
    cluster.scheduler.command("scancel", "--signal=USR2", job)
    wait_for(lambda: "stopped by SIGUSR2; back into the queue" in cluster.log(job), "the job requeues itself", 120)
    (stop,) = events(trial, "stop")
    assert not (trial / "outcome.json").exists()
    cluster.finish(job)
    (resumed,) = events(trial, "resume")
    assert resumed["images"] == stop["images"]
    assert not (trial / "STOP").exists()
    assert events(trial, "stage_end")[-1]["stage"] == 2
    assert cluster.scheduler.facts(job)["Restarts"] == "1"


def test_a_job_that_its_user_ends_by_sigterm_lets_running_trials_save_and_is_not_started_again(cluster, tmp_path):
    job = submit(cluster, sweep(cluster, tmp_path, **{"stage2.max_epochs": 40, "checkpoint.every_images": 10**6}))
    (trial,) = wait_for(lambda: list((tmp_path / "sweep" / "trials").glob("*0*")), "the trial starts", 200)
    wait_for(lambda: [event for event in events(trial, "train") if event["stage"] == 2], "stage 2", 200)
    cluster.scheduler.command("scancel", "--batch", "--signal=TERM", job)
    cluster.scheduler.wait_until(job, "FAILED", seconds=150)
    (stop,) = events(trial, "stop")
    assert (trial / "checkpoints" / f"{stop['images']:012d}" / "COMPLETE").exists()
    assert "ended by SIGTERM; submitted again, the sweep continues" in cluster.log(job)
    assert cluster.scheduler.facts(job)["Restarts"] == "0"


def test_scancel_alone_lets_running_trials_save_and_the_sweep_submitted_again_goes_on_from_there(cluster, tmp_path):
    file = sweep(cluster, tmp_path, **{"stage2.max_epochs": 40, "checkpoint.every_images": 10**6})
    options = ["--nodes=2", *ONE_NODE[1:]]
    job = submit(cluster, file, options)
    (trial,) = wait_for(lambda: list((tmp_path / "sweep" / "trials").glob("*0*")), "the trial starts", 200)
    wait_for(lambda: [event for event in events(trial, "train") if event["stage"] == 2], "stage 2", 200)
    cluster.scheduler.command("scancel", job)
    cluster.scheduler.wait_until_idle()
    assert cluster.scheduler.state(job) == "CANCELLED"
    (stop,) = events(trial, "stop")
    assert (trial / "checkpoints" / f"{stop['images']:012d}" / "COMPLETE").exists()
    assert "1 running trials have saved; the same command continues" in cluster.log(job)
    again = submit(cluster, file, options)
    cluster.finish(again)
    (resumed,) = events(trial, "resume")
    assert resumed["images"] == stop["images"]


def test_a_preempted_sweep_saves_its_running_trials_and_goes_back_into_the_queue(cluster: Cluster, tmp_path):
    file = sweep(cluster, tmp_path, **{"stage2.max_epochs": 40, "checkpoint.every_images": 10**6})
    job = submit(cluster, file)
    (trial,) = wait_for(lambda: list((tmp_path / "sweep" / "trials").glob("*0*")), "the trial starts", 200)
    wait_for(lambda: [event for event in events(trial, "train") if event["stage"] == 2], "stage 2", 200)
    words = ["--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
    urgent = cluster.scheduler.command("sbatch", "--parsable", *words)
    cluster.scheduler.wait_until(urgent, "COMPLETED")
    (stop,) = events(trial, "stop")
    assert "preempted; back into the queue" in cluster.log(job)
    cluster.finish(job)
    (resumed,) = events(trial, "resume")
    assert resumed["images"] == stop["images"]
    assert events(trial, "stage_end")[-1]["stage"] == 2


def test_two_sweeps_on_one_node_have_ports_of_their_own(cluster: Cluster, tmp_path):
    short = {"stage1.max_epochs": 1, "stage2.max_epochs": 1}
    options = [*ONE_NODE, "--nodelist=n1"]
    jobs = [submit(cluster, sweep(cluster, tmp_path / name, **short), options) for name in ("one", "two")]
    wait_for(lambda: all(cluster.scheduler.state(job) == "RUNNING" for job in jobs), "both run", 30)
    for job in jobs:
        cluster.finish(job)
        assert "report: " in cluster.log(job)
