"""A trial as Ray Tune sees it: a function that starts a Ray Train TorchTrainer and waits for its end."""

import os
from typing import Any

import ray.train
import ray.train.torch
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from data_shards.io.errors import InputError
from tune.search.trials import Trial, note_failure, save_trial
from tune.sweep_config import SweepConfig
from tune.trial.leftovers import free_processes
from tune.trial.worker import Task, work


def drive(params: dict[str, Any], sweep: SweepConfig) -> None:
    """Runs the trial `params["trial"]` to its end. A killed worker is started again up to `sweep.retries` times."""
    trial = Trial(**params["trial"])
    folder = sweep.trials_folder / trial.name
    save_trial(folder, trial)
    try:
        config = sweep.trainer_config(trial.name, trial.seed, trial.fields)
    except InputError as error:
        note_failure(folder, str(error))
        return
    # A driver that was killed may have left workers; two trainings must not write into one run folder.
    free_processes(folder)
    resources: dict[str, float] = {"CPU": sweep.cpus_per_worker}
    if config.device == "cuda":
        resources["GPU"] = 1
    # Ray Train takes one report of a worker at a time, every two seconds by default, and the training waits for it.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    trainer = ray.train.torch.TorchTrainer(
        work,
        train_loop_config={"task": Task(config=config, measured=sweep.measure)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=sweep.workers, use_gpu=config.device == "cuda", resources_per_worker=resources
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
        note_failure(folder, f"its processes ended {sweep.retries + 1} times; the last time: {_gist(error)}")


def _gist(error: WorkerGroupError) -> str:
    first = str(next(iter(error.worker_failures.values()))).strip().splitlines()
    return first[-1] if first else type(error).__name__
