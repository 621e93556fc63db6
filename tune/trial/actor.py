"""A trial as Ray Tune runs it: a function in an actor of its own, which is rank 0 of the training."""

import dataclasses
import os
from typing import Any

import ray
from ray import tune

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from tune.search.stopping import budget, rungs
from tune.sweep_config import SweepConfig
from tune.trial.folder import load_failure, save_attempt, save_failure, save_trial, trial_of
from tune.trial.population import decision_of
from tune.trial.takeover import present_fields, take_over
from tune.trial.team import peers
from tune.trial.worker import Task, carry_out


def run_trial(params: dict[str, Any], sweep: SweepConfig, on_gpu: bool) -> None:
    """Runs the trial `params["trial"]` to its end, or until Ray stops it at a report."""
    # Ray uses this process for the next trial only where the training thread of this one ends in time.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "120"
    trial = trial_of(params)
    folder = sweep.trials_folder / trial.name
    if load_failure(folder):  # of another of its processes, after which Ray has started all of them again
        tune.report({"failed": True})
        return
    save_trial(folder, trial)
    population = sweep.stopping.scheduler == "pbt" and trial.phase == "search"
    if population:
        take_over(folder, decision_of(params))
    fields = present_fields(folder)
    try:
        config = sweep.trainer_config(trial.name, trial.seed, fields)
    except InputError as error:
        save_failure(folder, str(error))
        tune.report({"failed": True})
        return
    save_attempt(folder)
    config = dataclasses.replace(config, device="cuda" if on_gpu else "cpu")
    images = Manifest.load(config.data.location).num_samples(config.data.train_split)
    task = Task(
        config=config,
        measure=sweep.measure,
        budget=budget(sweep, images, fields),
        rungs=rungs(sweep.stopping) if trial.phase == "search" else (),
        min_images=sweep.stopping.min_images,
        takes_turns=trial.phase == "search" and sweep.stopping.takes_turns,
        may_change=population,
    )
    others = peers(sweep.workers, sweep.cpus_per_worker, sweep.gpus_per_worker if on_gpu else 0)
    theirs = [peer.carry_out.remote(task) for peer in others]
    carry_out(task, tune.report)
    ray.get(theirs)
