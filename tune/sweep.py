"""A sweep from its first trial to its last: the search, then the best configuration against the default.

What has been reached lies in the run folders of the trials alone: each start reads them, and gives Ray what is left.
"""

import functools
import logging
import os
import sys
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from data_shards.io.lease import lease
from data_shards.manifest import Manifest
from tune.checks import CheckedSweep, check_sweep, require_disk
from tune.history import Started, at_rungs, drawn_before, results, search_has_ended, started_trials
from tune.ray_cluster import require_cluster, start_ray
from tune.report.ranking import best_configuration
from tune.resources import Needs, runs_on_gpu, trials_at_once
from tune.search.halving import TakingTurns
from tune.search.listed_search import ListedSearch
from tune.search.optuna_search import OptunaSearch
from tune.search.stopping import halving, remember, scheduler
from tune.search.trials import (
    Phase,
    Trial,
    confirming_trials,
    number_of_configurations,
    number_of_search_trials,
    search_trials,
)
from tune.settings import former_measure, keep_settings
from tune.sweep_config import SweepConfig
from tune.terminal import SweepProgress, name_of
from tune.trial.actor import run_trial
from tune.trial.folder import is_measured_otherwise, reopen, trial_folders
from tune.trial.pause import resume, saving_at_signals
from tune.trial.population import population
from tune.trial.record import TrialRecord, trial_record
from tune.trial.weights import KeptWeights


def run_sweep(sweep: SweepConfig, address: str | None, *, steal_lock: bool = False) -> tuple[list[TrialRecord], bool]:
    """Runs or continues a sweep. Returns the records of all its trials, and False where it was interrupted.

    address: of a Ray cluster, "auto" for the one this machine belongs to; None starts Ray on this machine alone.
    steal_lock: takes the sweep over from a process that runs it. Raises InputError where the sweep cannot end well, the
    folder holds another sweep, another process runs it, or the cluster is too small for one trial. At SIGINT, SIGTERM
    and SIGUSR2 running trials save first; the last raises SystemExit, see `saving_at_signals`.
    """
    checked = check_sweep(sweep, cluster=address is not None)
    require_cluster(address)
    require_disk(sweep, checked)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    was_started = ray.is_initialized()
    with lease(sweep.folder, steal=steal_lock):
        try:
            with saving_at_signals(sweep.trials_folder):
                return _run(sweep, checked, address)
        except KeyboardInterrupt:
            if not was_started:
                ray.shutdown()  # ends the trials, which wait for it
            return records(sweep), False


def _run(sweep: SweepConfig, checked: CheckedSweep, address: str | None) -> tuple[list[TrialRecord], bool]:
    former = former_measure(sweep)
    keep_settings(sweep)
    resume(sweep.trials_folder)
    for line in checked.notices:
        print(line, file=sys.stderr)
    folders = trial_folders(sweep.trials_folder)
    reopened = sum(reopen(folder, sweep.measure, former) for folder in folders)
    if reopened:
        print(f"{reopened} trials that had ended are tried or measured again", file=sys.stderr)
    if lost := sum(is_measured_otherwise(folder, sweep.measure, former) for folder in folders):
        print(
            f"{lost} trained trials were measured otherwise and not again, as their weights are not kept "
            "(keep_weights): of them only what would be measured the same way now is shown and compared",
            file=sys.stderr,
        )
    total = number_of_search_trials(sweep, drawn_before(started_trials(sweep, "search")))
    if not _run_phase(sweep, "search", total, [], address):
        return records(sweep), False
    if sweep.confirm_seeds and (best := best_configuration(records(sweep), sweep.objectives[0])) is not None:
        compared = confirming_trials(best, drawn_before(started_trials(sweep, "confirm")), sweep.confirm_seeds)
        return records(sweep), _run_phase(sweep, "confirm", len(compared), compared, address)
    return records(sweep), True


def records(sweep: SweepConfig) -> list[TrialRecord]:
    """The records of all trials that were started, by name."""
    return [trial_record(folder, sweep.measure) for folder in trial_folders(sweep.trials_folder)]


def _left(
    sweep: SweepConfig, started: list[Started], listed: list[Trial], images: int, stops: TrialScheduler | None
) -> Searcher:
    """The trials that have not ended. listed: those of a phase that has no search. images: of an epoch."""
    ended = {one.trial.name for one in started if one.ended}
    if listed:
        return ListedSearch(trial for trial in listed if trial.name not in ended)
    if sweep.search == "optuna":
        count = number_of_configurations(sweep, drawn_before(started))
        return OptunaSearch(sweep, count, results(sweep, images, started))
    trials = (trial for trial in search_trials(sweep, drawn_before(started)) if trial.name not in ended)
    return ListedSearch(trials, stops.may_begin) if isinstance(stops, TakingTurns) else ListedSearch(trials)


def _scheduler(sweep: SweepConfig, started: list[Started], images: int, at_once: int) -> TrialScheduler:
    """What stops trials of the search early; it knows those that ended before."""
    if sweep.stopping.scheduler == "pbt":  # of those that are trained
        return population(sweep, at_once)
    if sweep.stopping.scheduler == "halving":
        finished = sum(one.outcome.status == "finished" for one in started)
        stops: TrialScheduler = halving(sweep.stopping, at_once, finished)
    else:
        stops = scheduler(sweep.stopping)
    if sweep.stopping.scheduler != "none":
        remember(stops, [(one.trial.name, at_rungs(sweep, images, one)) for one in started if one.ended])
    return stops


def _started(sweep: SweepConfig, phase: Phase, listed: list[Trial]) -> list[Started]:
    """The trials of the phase that were started; of a phase that has no search, those of `listed`."""
    names = {trial.name for trial in listed}
    return [one for one in started_trials(sweep, phase) if not listed or one.trial.name in names]


def _ended(sweep: SweepConfig, phase: Phase, total: int, listed: list[Trial]) -> bool:
    """Whether all trials of the phase have ended."""
    started = _started(sweep, phase, listed)
    return sum(one.ended for one in started) >= total if listed else search_has_ended(sweep, started)


def _run_phase(sweep: SweepConfig, phase: Phase, total: int, listed: list[Trial], address: str | None) -> bool:
    """Runs the trials of a phase that have not ended. Returns whether all of them have then."""
    if _ended(sweep, phase, total, listed):
        return True
    # A trial that fails before its first check has reported no metric; Tune would end the whole sweep because of it.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    # Ray's own files of each trial, and the state that it stores from time to time: nobody reads them.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"
    # Signals are ours, see `saving_at_signals`.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # `SweepProgress` prints instead of Tune.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    start_ray(address)
    on_gpu = runs_on_gpu(sweep)
    gpus = sweep.gpus_per_worker if on_gpu else 0.0
    needs = Needs(workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=gpus)
    at_once = trials_at_once(sweep, needs)
    config = sweep.trainer_config("base", 0, {})
    images = Manifest.load(config.data.location).num_samples(config.data.train_split)
    started = _started(sweep, phase, listed)
    # The confirming trials are trained to their ends.
    stops = _scheduler(sweep, started, images, at_once) if phase == "search" else None
    kept = KeptWeights(sweep, [trial_record(one.folder, sweep.measure) for one in started if one.ended])
    progress = SweepProgress(
        phase,
        sweep,
        total,
        needs,
        ended={one.trial.name: one.outcome.status for one in started if one.ended},
        on_end=kept.ended,
    )
    tune.Tuner(
        tune.with_resources(functools.partial(_trial, sweep=sweep, on_gpu=on_gpu), needs.placement()),
        tune_config=tune.TuneConfig(
            search_alg=_left(sweep, started, listed, images, stops),
            num_samples=-1,
            scheduler=stops,
            # Those that wait are among them, and with as many Ray would not ask whether there is another one.
            max_concurrent_trials=total + 1 if isinstance(stops, TakingTurns) else at_once,
            reuse_actors=True,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name=phase,
            storage_path=str(sweep.ray_folder / "tune"),
            callbacks=[progress],
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            verbose=0,
        ),
    ).fit()
    kept.delete(wait_seconds=20.0)
    if kept.deleted:
        print(
            f"{kept.deleted} checkpoints were deleted, of trials that are not among the {sweep.keep_weights} best "
            "configurations (keep_weights)",
            file=sys.stderr,
        )
    return _ended(sweep, phase, total, listed)


def _trial(params: dict[str, Any], sweep: SweepConfig, on_gpu: bool) -> None:
    run_trial(params, sweep, on_gpu)
