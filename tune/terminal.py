"""What a person at the terminal wants to know of a running sweep, and the outcome of each trial as it ends."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial

from data_shards.io.progress import Progress
from tune.search.trials import Trial, save_trial
from tune.trial.leftovers import free_processes
from tune.trial.record import has_outcome, note_outcome, trial_record


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
        # Ray comes by many times a second: an ended trial's record is read once.
        for trial in trials:
            if trial.is_finished() and trial.trial_id not in self._statuses:
                self._note(trial)
                self._statuses[trial.trial_id] = trial_record(self._folder(trial))["status"]
        self._bar.update(len(self._statuses), **self._facts(trials, list(self._statuses.values())))

    def on_experiment_end(self, trials: Sequence[RayTrial], **info: Any) -> None:
        # Nothing is noted here: where the sweep was interrupted, Tune has by now ended trials that are to go on.
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def _facts(self, trials: Sequence[RayTrial], outcomes: list[str]) -> dict[str, object]:
        facts: dict[str, object] = {"running": sum(trial.status == RayTrial.RUNNING for trial in trials)}
        facts |= {name: outcomes.count(name) for name in ("stopped", "failed")}
        told = [((trial.last_result or {}).get("elbo", math.nan), name_of(trial)) for trial in trials]
        if measured := [(elbo, name) for elbo, name in told if math.isfinite(elbo)]:
            facts["best"] = "ELBO {:.1f} ({})".format(*max(measured))
        return facts

    def _folder(self, trial: RayTrial) -> Path:
        return self.trials_folder / name_of(trial)

    def _note(self, trial: RayTrial) -> None:
        folder = self._folder(trial)
        if has_outcome(folder):
            return
        free_processes(folder)
        if not folder.exists():
            save_trial(folder, Trial(**trial.config["trial"]))  # its driver never came to life
        if trial.status == RayTrial.ERROR:
            note_outcome(folder, "failed", _gist(trial))
        elif reason := trial_record(folder)["reason"]:
            note_outcome(folder, "failed", reason)
        elif (trial.last_result or {}).get("finished"):
            note_outcome(folder, "finished", "")
        else:
            images = trial.last_result.get("images", 0)
            rung = max((rung for rung in self.rungs if rung <= images), default=0)
            elbo = trial.last_result.get("elbo", float("nan"))
            note_outcome(folder, "stopped", f"ASHA, at the rung of {rung:,} images: ELBO {elbo:.1f} is below its cut")


def name_of(trial: RayTrial) -> str:
    """Our name of Ray's trial."""
    return Trial(**trial.config["trial"]).name


def _gist(trial: RayTrial) -> str:
    """The last line of the error that ended a trial after all its retries."""
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return (
        f"its driver ended again and again; the last time: {lines[-1]}" if lines else "its driver ended again and again"
    )
