"""slurm/train_celeba.sh on a real scheduler with two nodes: it trains, and interruptions do not change the weights."""

import contextlib
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from batch_jobs import FIELDS, Cluster, events, wait_for_stage2
from scheduler import wait_for

from trainer.config.config import load_config
from trainer.run_folder.checkpoint import complete_checkpoints, read_model, read_state

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
ENDLESS = {"stage2.max_epochs": 10000}


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster):
    """A run that nothing interrupted."""
    job = cluster.train("undisturbed")
    cluster.finish(job)
    assert not events(cluster.runs / "undisturbed", "stop")
    return cluster.runs / "undisturbed"


def assert_continued_to_the_same_weights(run, undisturbed):
    expected = read_model(complete_checkpoints(undisturbed)[-1])
    found = read_model(complete_checkpoints(run)[-1])
    assert read_state(complete_checkpoints(run)[-1]).stages.ended == "cap"
    assert events(run, "resume")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def signal_has_come(process: psutil.Process, number: signal.Signals) -> bool:
    if not process.is_running() or process.status() != psutil.STATUS_STOPPED:
        return True  # it came with a SIGCONT
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_two_nodes_train_both_stages(undisturbed):
    state = read_state(complete_checkpoints(undisturbed)[-1])
    assert state.world_size == 2
    assert state.stages.stage == 2
    assert state.stages.ended == "cap"


def test_fields_on_the_command_line_reach_the_trainer(undisturbed):
    config = load_config(undisturbed / "config.yaml")
    assert config.model.encoder_channels == (8, 16)
    assert config.model.activation == load_config("trainer/configs/celeba_small.yaml").model.activation


def test_a_job_preempted_in_stage_2_ends_with_the_weights_of_an_undisturbed_one(cluster: Cluster, undisturbed):
    job = cluster.train("preempted")
    run = cluster.runs / "preempted"
    wait_for_stage2(run)
    urgent = cluster.scheduler.command(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    cluster.scheduler.wait_until(urgent, "COMPLETED")
    cluster.finish(job)
    assert [(event["stage"], event["reason"]) for event in events(run, "stop")] == [(2, "SIGTERM")]
    assert "stopped by SIGTERM; back into the queue" in cluster.log(job)
    assert_continued_to_the_same_weights(run, undisturbed)


def test_a_job_out_of_time_continues_to_the_same_weights(cluster: Cluster, undisturbed):
    job = cluster.train("out-of-time")
    run = cluster.runs / "out-of-time"
    wait_for_stage2(run)
    trainers = cluster.scheduler.trainers()
    for process in trainers:
        process.suspend()  # Slurm looks at limits every 30 s, and the run must not end before
    cluster.scheduler.command("scontrol", "update", f"JobId={job}", "TimeLimit=10")  # the script asks for USR2@600
    wait_for(lambda: all(signal_has_come(process, signal.SIGUSR2) for process in trainers), "the signal comes", 100)
    for process in trainers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
    wait_for(lambda: "stopped by SIGUSR2; back into the queue" in cluster.log(job), "the job requeues itself")
    cluster.scheduler.wait_until(job, "PENDING")
    cluster.scheduler.command("scontrol", "update", f"JobId={job}", "TimeLimit=30")
    cluster.finish(job)
    assert_continued_to_the_same_weights(run, undisturbed)


def test_usr2_by_scancel_saves_and_requeues_tasks_of_srun(cluster: Cluster, undisturbed):
    job = cluster.train("signalled", LAUNCH="srun")
    run = cluster.runs / "signalled"
    wait_for_stage2(run)
    cluster.scheduler.command("scancel", "--signal=USR2", job)
    cluster.finish(job)
    assert cluster.scheduler.facts(job)["Restarts"] == "1"
    assert_continued_to_the_same_weights(run, undisturbed)


def test_a_job_whose_node_is_lost_continues_when_the_node_is_back(cluster: Cluster, undisturbed):
    job = cluster.train("node-lost")
    run = cluster.runs / "node-lost"
    wait_for_stage2(run)
    cluster.scheduler.kill_node("n2")
    cluster.scheduler.wait_until(job, "PENDING", seconds=120)
    cluster.scheduler.start_node("n2")
    cluster.scheduler.wait_until_idle()
    # Slurm itself waits two minutes, in which it clears the lost steps. Started earlier, the new step has the number of
    # the lost one, and gets the signal that ends that.
    cluster.scheduler.wait_until(job, "RUNNING", seconds=300)
    cluster.finish(job)
    assert_continued_to_the_same_weights(run, undisturbed)


def test_a_cancelled_job_saves_and_is_not_requeued(cluster: Cluster):
    job = cluster.train("cancelled", fields=ENDLESS)
    run = cluster.runs / "cancelled"
    wait_for_stage2(run, updates=1)
    cluster.scheduler.command("scancel", job)
    cluster.scheduler.wait_until(job, "CANCELLED")
    cluster.scheduler.wait_until_idle()
    time.sleep(5)
    facts = cluster.scheduler.facts(job)
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")
    (stop,) = events(run, "stop")
    assert (run / "checkpoints" / f"{stop['images']:012d}" / "COMPLETE").exists()


def test_the_number_of_requeues_is_bounded(cluster: Cluster):
    job = cluster.train("bounded", fields=ENDLESS, MAX_REQUEUES=1)
    run = cluster.runs / "bounded"
    wait_for_stage2(run, updates=1)
    cluster.scheduler.command("scancel", "--signal=USR2", job)
    cluster.scheduler.wait_until(job, "PENDING")
    cluster.scheduler.start_now(job)
    wait_for(
        lambda: events(run, "resume") and events(run, "train")[-1]["images"] > events(run, "resume")[-1]["images"],
        "the run continues",
    )
    cluster.scheduler.command("scancel", "--signal=USR2", job)
    cluster.finish(job, state="FAILED")
    assert "started again 1 times already (MAX_REQUEUES)" in cluster.log(job)
    assert cluster.scheduler.facts(job)["Restarts"] == "1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.latent_dim": 0}, "model.latent_dim"),  # refused before any process starts on the nodes
        ({"optimiser.learning_rate": 1e30, "checkpoint.bad_steps": 1}, "optimiser.learning_rate"),  # fails in training
    ],
)
def test_a_failed_configuration_does_not_requeue(cluster: Cluster, fields, message):
    job = cluster.train(f"failed-{message}", fields=fields)
    cluster.finish(job, state="FAILED")
    assert cluster.scheduler.facts(job)["Restarts"] == "0"
    assert message in cluster.log(job)


def test_tasks_of_srun_meet_where_only_some_variables_were_exported(cluster: Cluster):
    options = ["--export=PYTHON,SHARDS,RUNS,CONFIG,PROCESSES,DEVICE,LAUNCH,OMP_NUM_THREADS"]
    shortened = {"stage1.max_epochs": 1, "stage2.max_epochs": 1}
    job = cluster.train("exported", *options, fields=shortened, LAUNCH="srun")
    cluster.finish(job)
    assert read_state(complete_checkpoints(cluster.runs / "exported")[-1]).world_size == 2


def test_a_batch_of_one_hundred_is_divided_among_eight_processes(cluster: Cluster):
    fields = FIELDS | {"data.global_batch": 100, "stage1.max_epochs": 1, "stage2.max_epochs": 1, "name": "eight"}
    words = [f"--{key}={value}" for key, value in fields.items()]
    job = cluster.submit(["--gpus-per-node=4", "--cpus-per-task=8"], "train_celeba.sh", *words, PROCESSES=8)
    cluster.finish(job)
    assert read_state(complete_checkpoints(cluster.runs / "eight")[-1]).world_size == 8


def test_nodes_with_different_numbers_of_gpus_train_together(cluster: Cluster):
    fields = FIELDS | {"stage1.max_epochs": 1, "stage2.max_epochs": 1, "name": "uneven"}
    words = [f"--{key}={value}" for key, value in fields.items()]
    job = cluster.submit(["--gpus=3", "--nodes=2", "--cpus-per-task=1"], "train_celeba.sh", *words, PROCESSES="")
    cluster.finish(job)
    assert read_state(complete_checkpoints(cluster.runs / "uneven")[-1]).world_size == 3
