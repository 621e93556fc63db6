"""A trial as Ray Tune runs it: a function that starts a Ray Train TorchTrainer and waits for its end."""

import os
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray._raylet import PlacementGroupID
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group

from data_shards.io.errors import InputError
from tune.search.trials import Trial
from tune.sweep_config import SweepConfig
from tune.trial.folder import load_attempts, save_failure, save_trial
from tune.trial.worker import Task, train_and_measure


def drive(params: dict[str, Any], sweep: SweepConfig) -> None:
    """Runs the trial `params["trial"]` to its end. A killed worker is started again up to `sweep.retries` times."""
    trial = Trial(**params["trial"])
    folder = sweep.trials_folder / trial.name
    save_trial(folder, trial)
    try:
        config = sweep.trainer_config(trial.name, trial.seed, trial.fields)
    except InputError as error:
        save_failure(folder, str(error))
        return
    # A killed driver may have left workers running; two trainings must not write into one run folder.
    free_resources(folder)
    resources: dict[str, float] = {"CPU": sweep.cpus_per_worker}
    on_gpu = uses_gpu(config.device, sweep.workers)
    if on_gpu:
        resources["GPU"] = 1
    # Ray Train takes one report of a worker at a time, every two seconds by default, and the training waits for it.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    trainer = ray.train.torch.TorchTrainer(
        train_and_measure,
        train_loop_config={"task": Task(config=config, measure=sweep.measure)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=sweep.workers, use_gpu=on_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=trial.name,
            storage_path=str(sweep.ray_folder / "trainers"),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray has two classes of that name
            failure_config=ray.train.FailureConfig(max_failures=sweep.retries),
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        # All retries of its processes are used up. Tune's own are for a driver or a node that was lost.
        last = _last_line(error)
        save_failure(folder, f"its processes ended {sweep.retries + 1} times; the last time: {last}")


def uses_gpu(device: str, workers: int) -> bool:
    """Whether a trial of that many processes runs on GPUs: where it must, or where `auto` finds enough of them."""
    return device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= workers)


def _last_line(error: WorkerGroupError) -> str:
    lines = str(next(iter(error.worker_failures.values()))).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def free_resources(folder: Path) -> None:
    """Removes the placement groups of all attempts of a trial that has ended; removing one twice does no harm.

    The placement group holds the CPUs and GPUs of the trial's processes. Ray 2.60 removes it from a watcher that checks
    through the dashboard whether the training's controller is alive. Where the dashboard is off, or two Rays run on a
    machine, the watcher fails, and the next trial would wait for ever.
    """
    for attempt in load_attempts(folder):
        if group := attempt.get("placement_group"):
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))
