"""A sweep from its first trial to its last: the search, then the best configuration against the default.

Its progress is shown at the terminal, and the outcome of each trial is written as it ends.
"""

import functools
import json
import math
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from data_shards.io.lease import lease
from data_shards.io.progress import Progress
from tune.report.ranking import best_configuration
from tune.search.optuna_search import OptunaSearch
from tune.search.trials import Phase, Trial, number_of_search_trials, repeated, search_trials
from tune.sweep_config import SweepConfig
from tune.trial.driver import drive, free_resources, uses_gpu
from tune.trial.folder import (
    Outcome,
    has_outcome,
    load_failure,
    load_outcome,
    load_trial,
    save_outcome,
    save_trial,
    trial_folders,
)
from tune.trial.pause import resume
from tune.trial.record import TrialRecord, trial_record


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """Trials that Tune runs in one go."""

    name: Phase
    total: int
    space: dict[str, Any] = field(default_factory=dict)
    search: Searcher | None = None


def _listed(name: Phase, trials: list[Trial]) -> _Phase:
    space = {"trial": tune.grid_search([asdict(trial) for trial in trials])}
    return _Phase(name=name, total=len(trials), space=space)


def run_sweep(sweep: SweepConfig, address: str | None, *, steal_lock: bool = False) -> tuple[list[TrialRecord], bool]:
    """Runs or continues a sweep. Returns the records of all its trials, and False where it was interrupted.

    address: of a Ray cluster, "auto" for the one this machine belongs to; None starts Ray on this machine alone.
    steal_lock: takes the sweep over from a process that runs it. Raises InputError where the folder holds another
    sweep, another process runs it, or the cluster is too small for one trial.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with lease(sweep.folder, steal=steal_lock):
        return _run(sweep, address)


def _run(sweep: SweepConfig, address: str | None) -> tuple[list[TrialRecord], bool]:
    resume(sweep.trials_folder)
    if sweep.search == "optuna":
        search = _Phase(name="search", total=number_of_search_trials(sweep), search=OptunaSearch(sweep))
    else:
        search = _listed("search", search_trials(sweep))
    _open_folder(sweep)
    _run_phase(sweep, search, address)
    if not _ended(sweep, search):
        return records(sweep), False
    if sweep.confirm_seeds and (best := best_configuration(records(sweep), sweep.objectives[0])) is not None:
        compared = repeated("confirm", [best, {}], sweep.confirm_seeds)
        confirm = _listed("confirm", compared)
        _run_phase(sweep, confirm, address)
        return records(sweep), _ended(sweep, confirm)
    return records(sweep), True


def _ended(sweep: SweepConfig, phase: _Phase) -> bool:
    """False where the phase was interrupted: Tune catches Ctrl-C, stores its state, and returns."""
    own = [folder for folder in trial_folders(sweep.trials_folder) if load_trial(folder).phase == phase.name]
    return sum(load_outcome(folder).status != "unfinished" for folder in own) >= phase.total


def records(sweep: SweepConfig) -> list[TrialRecord]:
    """The records of all trials that were started, by name."""
    return [trial_record(folder) for folder in trial_folders(sweep.trials_folder)]


def _open_folder(sweep: SweepConfig) -> None:
    """Writes the sweep's configuration into its folder. Raises InputError where another one is there."""
    path = sweep.folder / "sweep.json"
    content = json.loads(json.dumps(asdict(sweep)))
    if not path.exists():
        sweep.trials_folder.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
        return
    before = json.loads(path.read_text())
    changed = [name for name in content if before.get(name) != content[name]]
    if changed:
        raise InputError(
            f"{path}: the sweep was started with another {', '.join(changed)}; restore it or choose another name"
        )


def _concurrent(sweep: SweepConfig) -> int:
    """Trials at once, from the sweep's file or as many as fit on the cluster now.

    The file's number may be larger than what fits now: an autoscaled cluster grows when trials wait.
    """
    has = ray.cluster_resources()
    cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
    fit = cpus // (sweep.workers * sweep.cpus_per_worker)
    if uses_gpu(sweep.fields["device"], sweep.workers):
        fit = min(fit, gpus // sweep.workers)
    if fit < 1 and not sweep.concurrent:
        raise InputError(
            f"{sweep.workers} of {sweep.cpus_per_worker} CPUs each are needed, but the cluster has {cpus} "
            f"CPUs and {gpus} GPUs; lower workers or cpus_per_worker, or add machines",
            parameter="workers",
        )
    return sweep.concurrent or fit


def _scheduler(sweep: SweepConfig) -> TrialScheduler:
    """ASHA with the sweep's rungs (Li et al. 2020), or one that stops nothing where there is no rung."""
    rungs = sweep.rungs()
    if not rungs:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="images",
        # Held out, at the closed-form sigma: comparable between the stages and between updates of sigma.
        metric="elbo",
        mode="max",
        grace_period=rungs[0],
        # Past the end of any trial: ASHA would stop a trial at max_t, before it is measured.
        max_t=sweep.latest_images()[1] + 1,
        reduction_factor=sweep.asha.reduction_factor,
    )


def _treat_as_ctrl_c(number: int) -> None:
    """Makes a signal act like Ctrl-C: Tune then stores its state and returns. By default Ray would end at once."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _run_phase(sweep: SweepConfig, phase: _Phase, address: str | None) -> None:
    if _ended(sweep, phase):
        return
    if not ray.is_initialized():
        # "local" keeps Ray from joining a cluster whose address an earlier one left behind on this machine.
        ray.init(address=address or "local", log_to_driver=False, include_dashboard=None if address else True)
    _treat_as_ctrl_c(signal.SIGTERM)
    # A trial that fails before its first check has reported no metric; Tune would end the whole sweep because of it.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    # The confirming trials are trained to their ends.
    stop_early = phase.name == "search"
    storage = sweep.ray_folder / "tune"
    # A driver only waits for its workers: with a CPU of its own, drivers could take all of them and wait for ever. Ray
    # does not place a trial without any resources, hence the memory.
    trainable = tune.with_resources(functools.partial(_driven, sweep=sweep), {"CPU": 0, "memory": 1_000_000})
    path = str(storage / phase.name)
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable=trainable, param_space=phase.space)
    else:
        progress = SweepProgress(phase.name, sweep.trials_folder, phase.total, sweep.rungs() if stop_early else ())
        tuner = tune.Tuner(
            trainable,
            param_space=phase.space,
            tune_config=tune.TuneConfig(
                search_alg=phase.search,
                num_samples=phase.total if phase.search else 1,
                scheduler=_scheduler(sweep) if stop_early else None,
                max_concurrent_trials=_concurrent(sweep),
                trial_name_creator=name_of,
                trial_dirname_creator=name_of,
            ),
            run_config=tune.RunConfig(
                name=phase.name,
                storage_path=str(storage),
                callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=sweep.retries),
                verbose=0,
            ),
        )
    tuner.fit()


def _driven(params: dict[str, Any], sweep: SweepConfig) -> None:
    drive(params, sweep)


class SweepProgress(Callback):
    """Prints trials done, running, stopped and failed, the best so far and the time left; writes outcomes."""

    def __init__(self, title: str, trials_folder: Path, total: int, rungs: tuple[int, ...]) -> None:
        self.title, self.trials_folder, self.total, self.rungs = title, trials_folder, total, rungs
        self._bar: Progress | None = None
        self._statuses: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Ray stores callbacks to restore a sweep; a terminal cannot be stored.
        return self.__dict__ | {"_bar": None, "_statuses": {}}

    def on_step_end(self, iteration: int, trials: Sequence[RayTrial], **info: Any) -> None:
        if self._bar is None:
            self._bar = Progress(self.title, self.total, "trials").__enter__()
        # Ray calls this many times a second: an ended trial's outcome is read once.
        for trial in trials:
            if trial.is_finished() and trial.trial_id not in self._statuses:
                self._save_outcome(trial)
                self._statuses[trial.trial_id] = load_outcome(self._folder(trial)).status
        self._bar.update(len(self._statuses), **self._facts(trials, list(self._statuses.values())))

    def on_experiment_end(self, trials: Sequence[RayTrial], **info: Any) -> None:
        # No outcome is written here: where the sweep was interrupted, Tune has ended trials that will be continued.
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def _facts(self, trials: Sequence[RayTrial], outcomes: list[str]) -> dict[str, object]:
        facts: dict[str, object] = {"running": sum(trial.status == RayTrial.RUNNING for trial in trials)}
        facts |= {name: outcomes.count(name) for name in ("stopped", "failed")}
        elbos = [((trial.last_result or {}).get("elbo", math.nan), name_of(trial)) for trial in trials]
        if measured := [(elbo, name) for elbo, name in elbos if math.isfinite(elbo)]:
            facts["best"] = "ELBO {:.1f} ({})".format(*max(measured))
        return facts

    def _folder(self, trial: RayTrial) -> Path:
        return self.trials_folder / name_of(trial)

    def _save_outcome(self, trial: RayTrial) -> None:
        folder = self._folder(trial)
        if has_outcome(folder):
            return
        free_resources(folder)
        if not folder.exists():
            save_trial(folder, Trial(**trial.config["trial"]))  # its driver was never started
        save_outcome(folder, self._outcome(trial, load_failure(folder)))

    def _outcome(self, trial: RayTrial, failure: str) -> Outcome:
        last = trial.last_result or {}
        if trial.status == RayTrial.ERROR:
            return Outcome(status="failed", reason=_error_line(trial))
        if failure:
            return Outcome(status="failed", reason=failure)
        if last.get("finished"):
            return Outcome(status="finished")
        images, elbo = last.get("images", 0), last.get("elbo", math.nan)
        rung = max((rung for rung in self.rungs if rung <= images), default=0)
        reason = f"ASHA, at the rung of {rung:,} images: ELBO {elbo:.1f} is below its cut"
        return Outcome(status="stopped", reason=reason)


def name_of(trial: RayTrial) -> str:
    """The name of our trial that Ray's trial runs."""
    return Trial(**trial.config["trial"]).name


def _error_line(trial: RayTrial) -> str:
    """Says that all retries of a trial's driver are used up, with the last line of the last error."""
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
    last = f"; the last time: {lines[-1]}" if lines else ""
    return f"its driver ended at every retry{last}"
