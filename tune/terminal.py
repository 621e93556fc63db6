"""The progress of a running sweep at the terminal, and the outcome of each trial as it ends."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial

from data_shards.io.progress import Progress
from tune.search.trials import Trial
from tune.trial.driver import free_resources
from tune.trial.folder import Outcome, has_outcome, load_failure, load_outcome, save_outcome, save_trial


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
