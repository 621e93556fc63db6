"""What a sweep prints while it runs, and the outcome that it writes as each trial ends."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial

from data_shards.io.progress import Progress
from tune.resources import Needs, machines_text, nodes
from tune.search.trials import Trial
from tune.sweep_config import SweepConfig
from tune.trial.folder import TrialOutcome, has_outcome, load_failure, measure_key, save_outcome, save_trial

_WAIT_SECONDS = 30.0
# Ray calls many times a second.
_SECONDS_BETWEEN_LOOKS = 0.5
# A mistake of the program, or of what it was given: it would come again.
_NO_MACHINES_FAULT = (
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "ImportError",
    "IndexError",
    "KeyError",
    "ModuleNotFoundError",
    "NotImplementedError",
    "TypeError",
    "ValueError",
    "ZeroDivisionError",
)


class SweepProgress(Callback):
    """Prints trials done, running, stopped and failed, the best so far and the time left; writes outcomes.

    ended: how the trials went that ended before, by name. on_end: called with the name of each trial that has ended.
    """

    def __init__(
        self,
        title: str,
        sweep: SweepConfig,
        total: int,
        needs: Needs,
        ended: dict[str, str],
        on_end: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.title, self.sweep, self.total, self.needs, self.on_end = title, sweep, total, needs, on_end
        self._statuses = dict(ended)
        self._best: tuple[float, str] | None = None
        self._bar: Progress | None = None
        self._next_look = 0.0
        self._waiting_since: dict[str, float] = {}
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        # Ray stores callbacks; a terminal cannot be stored, and nothing is read from there.
        return {}

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        """Ray calls it at the start."""
        self._bar = Progress(self.title, self.total, "trials").__enter__()

    def on_trial_result(
        self, iteration: int, trials: Sequence[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reached a rung, or its end."""
        elbo = result.get("elbo", math.nan)
        if math.isfinite(elbo) and (self._best is None or elbo > self._best[0]):
            self._best = elbo, name_of(trial)

    def on_trial_complete(self, iteration: int, trials: Sequence[RayTrial], trial: RayTrial, **info: Any) -> None:
        """A trial has ended, or was stopped."""
        self._ended(trial, self._outcome(trial))

    def on_trial_error(self, iteration: int, trials: Sequence[RayTrial], trial: RayTrial, **info: Any) -> None:
        """A trial has failed at every retry."""
        line = _error_line(trial)
        kind = line.partition(":")[0].rpartition(".")[2]
        again = kind not in _NO_MACHINES_FAULT
        reason = f"it failed at every retry; the last time: {line}"
        self._ended(trial, TrialOutcome(status="failed", reason=reason, again=again))

    def _ended(self, trial: RayTrial, outcome: TrialOutcome) -> None:
        name, folder = name_of(trial), self.sweep.trials_folder / name_of(trial)
        if not has_outcome(folder):
            if not folder.exists():
                save_trial(folder, Trial(**trial.config["trial"]))  # it was never started
            save_outcome(folder, outcome)
        self._statuses[name] = "failed" if load_failure(folder) else outcome.status
        self.on_end(name)

    def _outcome(self, trial: RayTrial) -> TrialOutcome:
        last = trial.last_result or {}
        if last.get("failed"):
            reason = load_failure(self.sweep.trials_folder / name_of(trial))
            return TrialOutcome(status="failed", reason=reason)
        if last.get("finished"):
            return TrialOutcome(status="finished", measure=measure_key(self.sweep.measure))
        progress, elbo = last.get("progress", 0.0), last.get("elbo", math.nan)
        name = self.sweep.stopping.scheduler
        return TrialOutcome(
            status="stopped",
            reason=f"{name}, at the rung of {progress:g} % of its budget: ELBO {elbo:.1f} is below its cut",
        )

    def on_step_end(self, iteration: int, trials: Sequence[RayTrial], **info: Any) -> None:
        """Ray calls it many times a second."""
        now = time.monotonic()
        if self._bar is None or now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        live = [trial for trial in trials if not trial.is_finished()]
        outcomes = list(self._statuses.values())
        facts: dict[str, object] = {"running": sum(trial.status == RayTrial.RUNNING for trial in live)}
        if waiting := sum(trial.status == RayTrial.PAUSED for trial in live):
            facts["waiting"] = waiting
        facts |= {name: outcomes.count(name) for name in ("stopped", "failed")}
        if self._best is not None:
            facts["best"] = "ELBO {:.1f} ({})".format(*self._best)
        self._bar.update(len(outcomes), **facts)
        self._tell_of_waiting(live, now)

    def _tell_of_waiting(self, live: Sequence[RayTrial], now: float) -> None:
        """Says once what trials wait for, where one has waited for so long."""
        pending = {trial.trial_id for trial in live if trial.status == RayTrial.PENDING}
        self._waiting_since = {one: self._waiting_since.get(one, now) for one in pending}
        longest = now - min(self._waiting_since.values(), default=now)
        if longest < _WAIT_SECONDS:
            self._told = self._told and bool(pending)
            return
        if not self._told:
            self._told = True
            print(
                f"{len(pending)} trials have waited {longest:.0f}s for machines: each needs {self.needs}; there are "
                f"{machines_text(nodes())}, of which {machines_text(_free())} are free",
                file=sys.stderr,
                flush=True,
            )

    def on_experiment_end(self, trials: Sequence[RayTrial], **info: Any) -> None:
        """Ray calls it at the end, and after an interruption, when trials that have not ended will be continued."""
        if self._bar is not None:
            outcomes = list(self._statuses.values())
            facts: dict[str, object] = {name: outcomes.count(name) for name in ("stopped", "failed")}
            if self._best is not None:
                facts["best"] = "ELBO {:.1f} ({})".format(*self._best)
            self._bar.update(len(outcomes), running=0, **facts)
            self._bar.__exit__(None, None, None)


def _free() -> list[dict[str, float]]:
    import ray._private.state

    return list(ray._private.state.available_resources_per_node().values())


def name_of(trial: RayTrial) -> str:
    """The name of our trial that Ray's trial runs."""
    return Trial(**trial.config["trial"]).name


def _error_line(trial: RayTrial) -> str:
    """The last line of the last error of a trial."""
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"
