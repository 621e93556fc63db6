"""Population based training of the learning rate (Jaderberg et al. 2017): Ray's scheduler, over run folders.

Every so often a trial in the lower quarter of the population takes over the weights and fields of one in the upper
quarter, and goes on with another learning rate. Ray decides who; what is taken over lies in the trials' run folders,
see `tune.trial.takeover`, so that a sweep that was killed goes on with what its trials have become.
"""

import random
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.pbt import _explore

from tune.search.halving import TakingTurns
from tune.search.stopping import POPULATION_STEP
from tune.space import Dimension
from tune.sweep_config import SweepConfig
from tune.trial.folder import trial_of
from tune.trial.takeover import LEARNING_RATE, Decision, present_fields, takeovers

_PARAMETER = "takeover"
"""Of a Ray trial that takes another one over, beside its `trial`."""


def decision_of(params: dict[str, Any]) -> Decision | None:
    """What a trial is to take over; None for one that goes on by itself."""
    return Decision(**params[_PARAMETER]) if _PARAMETER in params else None


def population(sweep: SweepConfig, at_once: int) -> "Population":
    """That of a sweep."""
    rates = {dimension.field: dimension for dimension in sweep.space}
    return Population(sweep.trials_folder, rates[LEARNING_RATE], at_once)


class Population(TakingTurns, PopulationBasedTraining):
    """Ray's scheduler, which compares `elbo` at `progress`.

    trials: the folder of the trials' run folders. learning_rate: what may be drawn for it. at_once: trials that run at
    a time; the others wait for their turn, and each runs as far as the others.
    """

    def __init__(self, trials: Path, learning_rate: Dimension, at_once: int) -> None:
        self._trials_folder, self._dimension = trials, learning_rate
        TakingTurns.__init__(self, at_once)
        PopulationBasedTraining.__init__(
            self,
            time_attr="progress",
            metric="elbo",
            mode="max",
            perturbation_interval=POPULATION_STEP,
            hyperparam_mutations={LEARNING_RATE: _mutation(learning_rate)},
            log_config=False,
            require_attrs=False,
        )

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Ray refuses any search beside it, as one that learns would be misled; that of a population only draws."""
        self.goes_on(trial)
        trial.config.setdefault(LEARNING_RATE, trial.config["trial"]["fields"][LEARNING_RATE])
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)  # type: ignore[arg-type]

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Compares a trial at a rung, where it waits for its next turn; not at its end, and once at each rung."""
        if result.get("finished") or self._metric not in result:
            return TrialScheduler.CONTINUE
        if result.get("settled"):
            state, progress = self._trial_state[trial], result["progress"]
            self._save_trial_state(state, progress, result, trial)
            state.last_perturbation_time = progress
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)
        took_over = trial.status == RayTrial.PAUSED
        if not took_over and decision != TrialScheduler.PAUSE and tune_controller.search_alg.is_finished():
            return decision
        if not took_over:  # Ray's own pause would ask for a checkpoint of its own
            tune_controller.pause_trial(trial, should_checkpoint=False)
        self.rests(trial)
        return TrialScheduler.NOOP

    def on_trial_complete(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> None:
        """A trial has ended."""
        self.rests(trial)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """A trial has failed."""
        self.rests(trial)

    def _checkpoint_or_exploit(
        self, trial: RayTrial, tune_controller: Any, upper_quantile: list[RayTrial], lower_quantile: list[RayTrial]
    ) -> None:
        if trial not in lower_quantile:
            return
        source = random.choice(upper_quantile)
        own, source_name = trial_of(trial.config), trial_of(source.config).name
        folder = self._trials_folder / source_name
        rate, how = self._another(present_fields(folder)[LEARNING_RATE])
        decision = Decision(
            number=len(takeovers(self._trials_folder / own.name)) + 1,
            source=source_name,
            learning_rate=rate,
            how=how,
            progress=self._trial_state[trial].last_train_time,
        )
        tune_controller.pause_trial(trial, should_checkpoint=False)
        trial.set_config({"trial": asdict(own), LEARNING_RATE: rate, _PARAMETER: asdict(decision)})
        self._num_perturbations += 1

    def _another(self, now: float) -> tuple[float, str]:
        """Another learning rate as Ray perturbs it, within the space, and what was done."""
        (changed, operations) = _explore(
            {LEARNING_RATE: now},
            self._hyperparam_mutations,
            self._resample_probability,
            self._perturbation_factors,  # type: ignore[arg-type]  # Ray's own type is of one number
            None,
        )
        rate, how = changed[LEARNING_RATE], operations[LEARNING_RATE]
        if not self._dimension.has(rate):
            factor = min(self._perturbation_factors) if rate > now else max(self._perturbation_factors)
            rate, how = now * factor, f"* {factor}"
        return (rate if self._dimension.has(rate) else now), how

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:
        """One that was chosen before or is new; else the furthest behind, where one more may run and all have begun."""
        trials = tune_controller.get_trials()
        pending = next((trial for trial in trials if trial.status == RayTrial.PENDING), None)
        if pending is not None or not self.has_room or not tune_controller.search_alg.is_finished():
            return pending
        waiting = [trial for trial in trials if trial.status == RayTrial.PAUSED]
        if not waiting:
            return None
        chosen = min(waiting, key=lambda trial: self._trial_state[trial].last_train_time)
        self.goes_on(chosen)
        return chosen


def _mutation(dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return sorted(dimension.values)
    return getattr(tune, dimension.kind)(*dimension.values)
