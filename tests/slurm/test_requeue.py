"""How a stopped job goes on where the cluster does not let a job requeue itself."""

import re

import pytest
from batch_jobs import FIELDS, Cluster, events, wait_for_stage2
from scheduler import wait_for
from support.running import ROOT

from trainer.run_folder.checkpoint import complete_checkpoints, read_state

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
ENDLESS = {"stage2.max_epochs": 10000}


def train(cluster: Cluster, name: str, *options: str, fields=None, **variables) -> str:
    """A training on one node that Slurm itself must not requeue, so that `scontrol requeue` is refused."""
    words = [f"--{key}={value}" for key, value in (FIELDS | (fields or {}) | {"name": name}).items()]
    resources = ["--cpus-per-task=1", "--gres=gpu:1", "--time=40", "--no-requeue", *options]
    return cluster.submit(resources, "train_celeba.sh", *words, **variables)


def stop(cluster: Cluster, job: str, run) -> None:
    wait_for_stage2(run, updates=1)
    cluster.scheduler.command("scancel", "--signal=USR2", job)


def test_a_job_that_cannot_be_requeued_is_continued_by_one_that_the_jobs_after_it_wait_for(cluster: Cluster):
    run = cluster.runs / "resubmitted"
    job = train(cluster, "resubmitted")
    waiting = ["sbatch", "--parsable", "--output=/dev/null", "--kill-on-invalid-dep=yes", "--wrap=true"]
    after_ok = cluster.scheduler.command(*waiting, f"--dependency=afterok:{job}")
    after_any = cluster.scheduler.command(*waiting, f"--dependency=afterany:{job}")
    stop(cluster, job, run)
    cluster.finish(job)
    log = cluster.log(job)
    assert "stopped by SIGUSR2; back into the queue" in log
    assert "scontrol requeue: Requested operation is presently disabled" in log
    (new,) = re.findall(r"continued by job (\d+)", log)
    assert {cluster.scheduler.state(one) for one in (after_ok, after_any)} == {"PENDING"}
    found = cluster.scheduler.facts(new)
    assert (found["NumNodes"][:1], found["TimeLimit"], found["TresPerNode"]) == ("1", "00:40:00", "gres:gpu:1")
    assert found["StdOut"] == cluster.scheduler.facts(job)["StdOut"]

    cluster.finish(new)
    assert events(run, "resume")
    assert read_state(complete_checkpoints(run)[-1]).stages.ended == "cap"
    for one in (after_ok, after_any):
        cluster.scheduler.wait_until(one, "COMPLETED")


def test_jobs_that_continue_each_other_are_counted(cluster: Cluster):
    run = cluster.runs / "counted"
    job = train(cluster, "counted", fields=ENDLESS, MAX_REQUEUES=1)
    stop(cluster, job, run)
    cluster.finish(job)
    (new,) = re.findall(r"continued by job (\d+)", cluster.log(job))
    cluster.scheduler.wait_until(new, "RUNNING")
    wait_for(lambda: events(run, "resume"), "the run continues")
    cluster.scheduler.command("scancel", "--signal=USR2", new)
    cluster.scheduler.wait_until(new, "FAILED")
    assert "started again 1 times already (MAX_REQUEUES)" in cluster.log(job)  # both write one log


def test_where_nothing_can_be_submitted_either_a_line_says_how_to_go_on(cluster: Cluster):
    run = cluster.runs / "refused"
    job = train(cluster, "refused", fields=ENDLESS)
    wait_for_stage2(run, updates=1)
    cluster.scheduler.command("scontrol", "update", "PartitionName=gpu", "State=DRAIN")
    try:
        cluster.scheduler.command("scancel", "--signal=USR2", job)
        cluster.finish(job, state="FAILED")
    finally:
        cluster.scheduler.command("scontrol", "update", "PartitionName=gpu", "State=UP")
    (line,) = [line for line in cluster.log(job).splitlines() if "submit it again to continue" in line]
    assert "neither requeued nor submitted from here" in line
    assert "slurm/train_celeba.sh" in line
    assert (run / "requeue").read_text() == "yes SIGUSR2\n"
    assert complete_checkpoints(run)


def test_a_task_of_an_array_goes_back_into_the_queue_alone(cluster: Cluster, tmp_path):
    """The number of an array's last task is that of the whole array, and requeueing that starts all tasks again."""
    script = "source slurm/lib.sh; MAX_REQUEUES=1; [[ $SLURM_ARRAY_TASK_ID == 0 || ${SLURM_RESTART_COUNT:-0} == 1 ]] ||"
    text = f"#!/bin/bash\nSCRIPT=slurm/part\ncd {ROOT}\n{script} requeue 'out of time'\nsleep 5\n"
    (tmp_path / "part.sh").write_text(text)
    log = f"--output={tmp_path}/%a.log"
    job = cluster.scheduler.command("sbatch", "--parsable", "--requeue", "--array=0-1", log, str(tmp_path / "part.sh"))
    cluster.finish(f"{job}_1")
    assert [cluster.scheduler.facts(f"{job}_{task}")["Restarts"] for task in (0, 1)] == ["0", "1"]
