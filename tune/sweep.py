"""A sweep from its first trial to its last, through any interruption: the search, then the best against the default."""

import functools
import json
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from data_shards.atomic import write_json
from data_shards.errors import InputError
from tune.ranking import best_configuration
from tune.record import Record, trial_record
from tune.stopping import rungs, scheduler
from tune.sweep_config import SweepConfig
from tune.terminal import SweepProgress, name_of
from tune.trial_driver import drive
from tune.trials import Trial, drawn_ahead, repeated, trial_folders

# Changed between two starts of a sweep these leave its trials what they are.
FREE_TO_CHANGE = ("runs", "concurrent", "retries", "cpus_per_worker")


def run_sweep(sweep: SweepConfig, address: str | None) -> list[Record]:
    """Runs, or goes on with, a sweep. Returns the records of all its trials.

    address: of a Ray cluster, "auto" for the one this machine belongs to; None starts Ray on this machine alone.
    Raises InputError where the folder holds another sweep, or the cluster is too small for one trial.
    """
    _open_folder(sweep)
    if not ray.is_initialized():
        # "local" keeps Ray from joining a cluster whose address an earlier one left behind on this machine.
        ray.init(address=address or "local", log_to_driver=False, include_dashboard=None if address else True)
    concurrent = _concurrent(sweep)
    _run_phase(sweep, repeated("search", drawn_ahead(sweep), sweep.seeds), concurrent, stop_early=True)
    if sweep.confirm_seeds and (best := best_configuration(records(sweep), sweep.objectives[0])) is not None:
        compared = repeated("confirm", [best, {}], sweep.confirm_seeds)
        _run_phase(sweep, compared, concurrent, stop_early=False)
    return records(sweep)


def records(sweep: SweepConfig) -> list[Record]:
    """The records of all trials that were started, by name."""
    return [trial_record(folder) for folder in trial_folders(sweep.trials_folder)]


def _open_folder(sweep: SweepConfig) -> None:
    """Remembers the sweep's configuration in its folder, or compares it with the one that is there."""
    path = sweep.folder / "sweep.json"
    content = json.loads(json.dumps(asdict(sweep)))
    if not path.exists():
        sweep.trials_folder.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
        return
    before = json.loads(path.read_text())
    changed = [name for name in content if name not in FREE_TO_CHANGE and before.get(name) != content[name]]
    if changed:
        raise InputError(
            f"{path}: the sweep was started with another {', '.join(changed)}; restore it or choose another name"
        )


def _concurrent(sweep: SweepConfig) -> int:
    """Trials at once. A trial's driver needs no CPU of its own, or trials could wait for each other for ever.

    A number that was asked for may be more than fit now: an autoscaled cluster grows by what waits.
    """
    cpus = int(ray.cluster_resources().get("CPU", 0))
    fit = cpus // (sweep.workers * sweep.cpus_per_worker)
    if fit < 1:
        raise InputError(
            f"workers: {sweep.workers} of {sweep.cpus_per_worker} CPUs each are asked for, but the cluster has {cpus} "
            "CPUs; lower workers or cpus_per_worker, or add machines"
        )
    return sweep.concurrent or fit


def _run_phase(sweep: SweepConfig, trials: list[Trial], concurrent: int, *, stop_early: bool) -> None:
    phase = trials[0].phase
    storage = sweep.ray_folder / "tune"
    # A driver only waits for its workers. Without the memory Ray would place a trial of nothing at all.
    trainable = tune.with_resources(functools.partial(_driven, sweep=sweep), {"CPU": 0, "memory": 1_000_000})
    space = {"trial": tune.grid_search([asdict(trial) for trial in trials])}
    path = str(storage / phase)
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable=trainable, param_space=space)
    else:
        progress = SweepProgress(phase, sweep.trials_folder, len(trials), rungs(sweep) if stop_early else ())
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                scheduler=scheduler(sweep) if stop_early else None,
                max_concurrent_trials=concurrent,
                trial_name_creator=name_of,
                trial_dirname_creator=name_of,
            ),
            run_config=tune.RunConfig(
                name=phase,
                storage_path=str(storage),
                callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=sweep.retries),
                verbose=0,
            ),
        )
    tuner.fit()


def _driven(params: dict[str, Any], sweep: SweepConfig) -> None:
    drive(params, sweep)
