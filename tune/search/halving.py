"""Successive halving that lets trials wait (ASHA as Li et al. 2020 define it), behind Ray's interface.

A trial stands at each rung until it is among the best there, one in `reduction_factor`. Ray's own scheduler decides at
once instead, and trains the trials that come first to their ends for want of others. When no other trial is left, the
best go on until `LEAST_ENDED` are trained to their ends, and the rest are stopped.
"""

import math
from collections.abc import Sequence
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

LEAST_ENDED = 3


class TakingTurns:
    """How many trials run at a time, where some of those that have begun wait."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._active: set[str] = set()

    @property
    def has_room(self) -> bool:
        """Whether one more may run."""
        return len(self._active) < self.at_once

    def may_begin(self) -> bool:
        """Whether a new trial may begin."""
        return self.has_room

    def goes_on(self, trial: Any) -> None:
        """A trial runs, or will as soon as there is a machine for it."""
        self._active.add(trial.trial_id)

    def rests(self, trial: Any) -> None:
        """A trial waits or has ended."""
        self._active.discard(trial.trial_id)


class Halving(TakingTurns, FIFOScheduler):
    """Compares `elbo` at `progress`, one of the rungs. ended: trials that were trained to their ends before."""

    def __init__(self, rungs: Sequence[float], reduction_factor: float, at_once: int, ended: int = 0) -> None:
        TakingTurns.__init__(self, at_once)
        FIFOScheduler.__init__(self)
        self._factor, self._ended = reduction_factor, ended
        self._reached: dict[float, dict[str, float]] = {rung: {} for rung in rungs}
        self._waits: dict[str, tuple[float, Any]] = {}
        """Ray's trials that wait, with their rungs, by id."""
        self._passed: dict[str, float] = {}
        """The last rung that a trial went on from, by id."""
        self._finishing: set[str] = set()
        """Trials that run to their ends, as no other is left."""

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """A new trial."""
        if tune_controller is not None:
            self.goes_on(trial)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """A trial stands at a rung: it goes on, or waits."""
        rung = result.get("progress")
        if result.get("finished"):
            self._ended += 1
        if result.get("finished") or rung not in self._reached:
            return TrialScheduler.CONTINUE
        self._reached[rung][trial.trial_id] = result["elbo"]
        if tune_controller is None or not result.get("last", True) or rung <= self._passed.get(trial.trial_id, 0.0):
            return TrialScheduler.CONTINUE
        if trial.trial_id in self._finishing or trial.trial_id in self._best(rung):
            self._passed[trial.trial_id] = rung
            return TrialScheduler.CONTINUE
        self._waits[trial.trial_id] = rung, trial
        self.rests(trial)
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return TrialScheduler.NOOP

    def on_trial_complete(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> None:
        """A trial has ended."""
        self.rests(trial)
        self._finishing.discard(trial.trial_id)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """A trial has failed; Ray adds it again where it is to be tried again."""
        self.rests(trial)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        """A trial that waited was stopped."""
        self.rests(trial)
        self._waits.pop(trial.trial_id, None)

    def may_begin(self) -> bool:
        """Whether a new trial may begin: where one more may run and none that waits goes on first."""
        return self.has_room and self._promoted() is None

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:
        """A trial that waits and may go on; else one that was chosen before or is new."""
        chosen = self._promoted() if self.has_room else None
        if chosen is None and self._active <= self._finishing and tune_controller.search_alg.is_finished():
            chosen = self._left_behind() if not self._active else None
            if chosen is None and self.has_room and self._ended + len(self._active) < LEAST_ENDED:
                chosen = self._best_that_waits()
            if chosen is None and not self._active:
                for _, trial in list(self._waits.values()):
                    tune_controller.stop_trial(trial)
        if chosen is not None:
            self._passed[chosen.trial_id], _ = self._waits.pop(chosen.trial_id)
            self.goes_on(chosen)
            return chosen
        return next((trial for trial in tune_controller.get_trials() if trial.status == RayTrial.PENDING), None)

    def _best(self, rung: float, *, at_least: int = 0) -> list[str]:
        """The trials that may go on from a rung, best first."""
        reached = self._reached[rung]
        count = max(math.floor(len(reached) / self._factor), at_least)
        return sorted(reached, key=lambda name: -reached[name])[:count]

    def _promoted(self) -> Any | None:
        """The trial at the highest rung that waits and is among the best there."""
        for rung in reversed(self._reached):
            for name in self._best(rung):
                if name in self._waits and self._waits[name][0] == rung:
                    return self._waits[name][1]
        return None

    def _left_behind(self) -> Any | None:
        """The trial at the lowest rung that waits only because numbers were rounded down."""
        for rung, reached in self._reached.items():
            for name in self._best(rung, at_least=math.ceil(len(reached) / self._factor)):
                if name in self._waits and self._waits[name][0] == rung:
                    return self._waits[name][1]
        return None

    def _best_that_waits(self) -> Any | None:
        """The best trial at the highest rung at which one waits; it does not wait again."""
        for rung in reversed(self._reached):
            for name in self._best(rung, at_least=len(self._reached[rung])):
                if name in self._waits and self._waits[name][0] == rung:
                    self._finishing.add(name)
                    return self._waits[name][1]
        return None
