"""What is killed during a sweep is resumed from its checkpoint, and the sweep ends with the same set of trials."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from support.sweep_cases import write_sweep
from test_sweep import by_name, environment, run_tune, sweep_command

from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.log import read_events
from tune.sweep_config import read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]

# Long enough to be killed in its middle, after the first checkpoint.
LONG = {"stage1.max_epochs": 8, "stage2.max_epochs": 8}


def start(path: Path, *before: str) -> subprocess.Popen:
    log = path.with_suffix(".log").open("a")
    words = [*before, *sweep_command(path)]
    return subprocess.Popen(words, env=environment(), stdout=log, stderr=log, start_new_session=True)


def end(command: subprocess.Popen) -> None:
    """Kills what is left of a command: Ray's own processes too."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == command.pid:
                process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    command.wait(30)


def descendants(command: subprocess.Popen, title: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(command.pid).children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 800) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition did not become true in time"
        time.sleep(0.2)


def resumed_from(run: Path) -> list[int]:
    """Images at which the run was resumed."""
    return [event["images"] for event in read_events(run) if event["event"] == "resume"]


@pytest.mark.parametrize(("workers", "title"), [(1, "ray::ImplicitFunc"), (2, "ray::ImplicitFunc"), (2, "ray::Peer")])
def test_a_killed_process_is_started_again_and_continues_from_the_trials_checkpoint(
    tmp_path, digits_shards, workers, title
):
    space = {"model.latent_dim": {"choice": [2]}}
    path = write_sweep(tmp_path, digits_shards, fields=LONG, space=space, workers=workers)
    run = read_sweep(path).trials_folder / "search-000-seed0"
    command = start(path)
    try:
        wait_for(lambda: complete_checkpoints(run))
        (victim,) = descendants(command, title)
        victim.kill()
        assert command.wait(800) == 0, path.with_suffix(".log").read_text()
    finally:
        end(command)
    (record,) = by_name(path).values()
    assert (record.status, record.retries) == ("finished", 1)
    assert resumed_from(run)[0] > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_same_command_continues_an_interrupted_sweep_which_ends_with_the_same_trials(
    tmp_path, digits_shards, number
):
    # One checkpoint at the end of stage 1, and no further one before the end.
    path = write_sweep(tmp_path, digits_shards, fields=LONG | {"checkpoint.every_images": 10**6})
    sweep = read_sweep(path)
    first, second = (sweep.trials_folder / f"search-{n:03d}-seed0" for n in (0, 1))
    command = start(path)
    try:
        wait_for(lambda: (first / "outcome.json").exists() and complete_checkpoints(second), 800)
        command.send_signal(number)
        code = command.wait(120)
    finally:
        end(command)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    ended = by_name(path)["search-000-seed0"]
    done = run_tune(path, timeout=800)
    assert done.returncode == 0, done.stderr
    records = by_name(path)
    assert list(records) == ["search-000-seed0", "search-001-seed0"]
    assert records["search-000-seed0"] == ended
    assert records["search-001-seed0"].status == "finished"
    (resumed,) = resumed_from(second)
    saved = [event["images"] for event in read_events(second) if event["event"] == "stop"]
    assert saved == ([] if number == signal.SIGKILL else [resumed])
    assert resumed > 0


def test_a_trial_of_two_processes_reports_what_one_process_would(tmp_path, digits_shards):
    records = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        path = write_sweep(
            folder, digits_shards, workers=workers, cpus_per_worker=1, space={"model.latent_dim": {"choice": [2]}}
        )
        done = run_tune(path)
        assert done.returncode == 0, done.stderr
        (record,) = by_name(path).values()
        records.append(record)
    one, two = records
    assert two.final_elbo == pytest.approx(one.final_elbo, rel=1e-3)
    assert [images for images, _ in two.checks] == [images for images, _ in one.checks]


def test_losses_that_are_not_finite_fail_their_trial_and_no_other(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, space={"optimiser.learning_rate": {"choice": [1e30, 0.005]}})
    done = run_tune(path, timeout=800)
    assert done.returncode == 0, done.stderr
    diverged, good = by_name(path).values()
    assert "not finite" in diverged.reason
    assert (diverged.status, good.status, diverged.retries) == ("failed", "finished", 0)


def test_a_sweep_whose_trials_all_fail_ends_with_code_1_and_says_so(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, space={"optimiser.learning_rate": {"choice": [1e30, 2e30]}})
    done = run_tune(path, timeout=800)
    assert done.returncode == 1
    assert "all 2 trials failed; the report says why, the first: " in done.stderr


def test_optuna_searches_for_two_objectives_with_repeats_over_seeds(tmp_path, digits_shards):
    path = write_sweep(
        tmp_path,
        digits_shards,
        search="optuna",
        configurations=2,
        seeds=[0, 1],
        objectives=["fd", "cost"],
        space={"model.latent_dim": {"randint": [2, 4]}, "optimiser.learning_rate": {"loguniform": [0.001, 0.01]}},
        measure={"images": 60, "mixture": 0},
    )
    done = run_tune(path, timeout=800)
    assert done.returncode == 0, done.stderr
    records = by_name(path)
    assert sorted(records) == [f"search-{n:03d}-seed{seed}" for n in (0, 1) for seed in (0, 1)]
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(read_sweep(path).folder / "optuna.journal")))
    study = optuna.load_study(study_name="sweep", storage=storage)
    for trial in study.trials:
        own = [records[f"search-{trial.number:03d}-seed{seed}"] for seed in (0, 1)]
        assert trial.values[0] == pytest.approx(sum(one.fd_final for one in own) / 2)
        assert trial.values[1] == pytest.approx(sum(one.seconds for one in own) / 2)


def test_a_sweep_on_two_nodes_of_which_one_is_lost_ends_with_all_its_trials(tmp_path, digits_shards):
    script = tmp_path / "two_nodes.py"
    path = write_sweep(tmp_path, digits_shards, fields=LONG, concurrent=2)
    sweep = read_sweep(path)
    assert yaml.safe_load(path.read_text())["concurrent"] == 2
    script.write_text(TWO_NODES)
    log = tmp_path / "nodes.log"
    with log.open("w") as file:
        command = subprocess.Popen(
            [sys.executable, str(script), str(path)],
            env=environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = command.wait(1500)
        finally:
            end(command)
    assert code == 0, log.read_text()
    assert "lost a node" in log.read_text()
    records = by_name(path)
    assert [record.status for record in records.values()] == ["finished", "finished"]
    resumed = {name: resumed_from(sweep.trials_folder / name) for name in records}
    assert sorted(len(images) for images in resumed.values()) == [0, 1]
    assert max(max(images, default=0) for images in resumed.values()) > 0


TWO_NODES = """
import os, sys, threading, time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from trainer.run_folder.checkpoint import complete_checkpoints
from tune.sweep import run_sweep
from tune.sweep_config import read_sweep

sweep = read_sweep(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
second = cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address
ray.init(address=cluster.address, log_to_driver=False)


def lose():
    while len(list(sweep.trials_folder.glob("*/checkpoints/*/COMPLETE"))) < 1 or not all(
        complete_checkpoints(sweep.trials_folder / f"search-{n:03d}-seed0") for n in (0, 1)
    ):
        time.sleep(0.2)
    cluster.remove_node(second, allow_graceful=False)
    print("lost a node", flush=True)
    # Its trial waits for a machine: one comes, as an autoscaler would bring it.
    cluster.add_node(num_cpus=1)


threading.Thread(target=lose, daemon=True).start()
records, ended = run_sweep(sweep, cluster.address)
print(len(records), ended, flush=True)
ray.shutdown()
cluster.shutdown()
"""
