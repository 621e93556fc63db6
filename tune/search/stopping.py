"""Stopping early: where a trial stands in its budget, its ELBO at the rungs, and Ray's scheduler that compares them.

All trials are compared by the held-out ELBO at the closed-form sigma, which is comparable between the stages, at equal
parts of their own budgets: at the same part of the same stage, where their learning rates have fallen as far. Compared
at equal images instead, a trial with a long budget would lose against one whose learning rate has fallen already.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from tune.search.halving import Halving
from tune.space import Fields
from tune.sweep_config import StoppingConfig, SweepConfig

# A first check up to this factor past a rung stands for it; there is none before, between which to interpolate.
_NEAR = 1.25
# Of `median`, in percent: the others' means are over all rungs so far, so rungs lie evenly.
_MEDIAN_STEP = 5.0
POPULATION_STEP = 10.0
"""Percent of a trial's budget between two moments at which a population is compared."""
HYPERBAND_BRACKETS = 3


@dataclass(frozen=True, kw_only=True)
class TrialBudget:
    """The largest number of images that a trial may see, stage by stage, and the part of each stage in a rung."""

    caps: tuple[int, ...]
    """Images of each stage at its cap, each above 0."""
    first_share: float
    """Percent of the budget that stage 1 takes, the same for all trials with two stages."""

    def percent(self, stage: int, images: int) -> float:
        """The place in the budget after so many images of a stage, 0 to 100. stage: 1 or 2."""
        start, end = self.ends(stage)
        return start + (end - start) * min(1.0, images / self.caps[stage - 1])

    def ends(self, stage: int) -> tuple[float, float]:
        """The percents between which a stage lies."""
        if len(self.caps) == 1:
            return 0.0, 100.0
        return (0.0, self.first_share) if stage == 1 else (self.first_share, 100.0)


def budget(sweep: SweepConfig, train_images: int, drawn: Fields) -> TrialBudget:
    """The budget of a trial with these drawn fields. train_images: of an epoch."""
    config = sweep.trainer_config("budget", 0, drawn)
    stages = (config.stage1, config.stage2) if config.two_stages else (config.stage1,)
    first, second = sweep.longest_stages(train_images)
    return TrialBudget(
        caps=tuple(stage.cap(train_images) for stage in stages),
        first_share=100.0 * first / (first + second) if second else 100.0,
    )


def rungs(stopping: StoppingConfig) -> tuple[float, ...]:
    """The rungs in percent of a trial's budget, rising; none where nothing is stopped early."""
    if stopping.scheduler == "none":
        return ()
    first = stopping.first_percent
    if step := {"median": _MEDIAN_STEP, "pbt": POPULATION_STEP}.get(stopping.scheduler):
        return tuple(first + step * count for count in range(math.ceil((100 - first) / step)))
    # As Ray's scheduler computes them, to the last bit.
    count = int(math.log(100 / first) / math.log(stopping.reduction_factor)) + 1
    found = (first * stopping.reduction_factor**step for step in range(count))
    return tuple(rung for rung in found if rung < 100)


@dataclass(kw_only=True)
class AtRungs:
    """A trial's held-out ELBO at the rungs, interpolated between the checks on either side."""

    budget: TrialBudget
    rungs: tuple[float, ...]
    min_images: int = 0
    """Images before which no rung is settled."""
    _stage_start: dict[int, int] = field(default_factory=lambda: {1: 0})
    _last: tuple[int, float, float] | None = None
    """Stage, percent and ELBO of the last check."""

    def event(self, kind: str, images: int, facts: Mapping[str, Any]) -> list[tuple[float, float]]:
        """The (rung, ELBO) pairs that an event of the run's log settles; images: seen in all."""
        if kind == "stage_start":
            self._stage_start[facts["stage"]] = images
        elbo = facts.get("elbo_at_closed_form")
        if kind != "valid" or elbo is None or not math.isfinite(elbo):
            return []
        stage = facts["stage"]
        percent = self.budget.percent(stage, images - self._stage_start.get(stage, 0))
        before, self._last = self._last, (stage, percent, elbo)
        if images < self.min_images:
            return []
        return self._settled(before, stage, percent, elbo)

    def _settled(
        self, before: tuple[int, float, float] | None, stage: int, percent: float, elbo: float
    ) -> list[tuple[float, float]]:
        if before is None:
            near = [rung for rung in self.rungs if rung <= percent <= _NEAR * rung]
            return [(near[-1], elbo)] if near else []
        former, start, value = before
        passed = [rung for rung in self.rungs if start < rung <= percent]
        if former == stage:
            return [(rung, value + (elbo - value) * (rung - start) / (percent - start)) for rung in passed]
        # Where stage 1 ended before its cap, the trial has stood there since.
        switch = self.budget.ends(stage)[0]
        return [(rung, value if rung <= switch else elbo) for rung in passed]


class Scheduler(Protocol):
    """What the sweep and a replay call of Ray's schedulers."""

    def on_trial_add(self, controller: Any, trial: Any) -> None: ...

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str: ...


class _KeepsSettled:
    """A trial is compared once at a rung: not again after a restart, and not at its end."""

    def on_trial_result(self, controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(controller, trial, result)  # type: ignore[misc]
        return TrialScheduler.CONTINUE if result.get("settled") or result.get("finished") else decision


class _Asha(_KeepsSettled, ASHAScheduler):
    pass


class _Median(_KeepsSettled, MedianStoppingRule):
    def _on_insufficient_samples(self, controller: Any, trial: RayTrial, time: float) -> str:
        return TrialScheduler.CONTINUE  # Ray's would pause the trial


class PrunedByOptuna(FIFOScheduler):
    """Optuna's HyperbandPruner behind Ray's interface, with a study of its own; a step is the rung's number."""

    def __init__(self, rungs: Sequence[float], reduction_factor: int) -> None:
        super().__init__()
        self._steps = {rung: reduction_factor**place for place, rung in enumerate(rungs)}
        # The brackets begin at the first, second and third rung.
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=reduction_factor ** (HYPERBAND_BRACKETS - 1), reduction_factor=reduction_factor
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(study_name="pruned", direction="maximize", pruner=pruner)
        self._trials: dict[str, tuple[optuna.Trial, set[float]]] = {}

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Begins a trial of the study."""
        self._trials[trial.trial_id] = self._study.ask(), set()

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Reports to the pruner what a trial reached at a rung, once there."""
        progress, (own, known) = result.get("progress"), self._trials[trial.trial_id]
        if result.get("finished") or progress not in self._steps or progress in known:
            return TrialScheduler.CONTINUE
        known.add(progress)
        own.report(result["elbo"], self._steps[progress])
        pruned = own.should_prune()  # also what the pruner remembers of the trial
        return TrialScheduler.STOP if pruned and not result.get("settled") else TrialScheduler.CONTINUE


def scheduler(stopping: StoppingConfig) -> TrialScheduler:
    """What stops trials: it compares `elbo` at `progress`, the rung in percent of a trial's budget."""
    if stopping.scheduler == "none":
        return FIFOScheduler()
    if stopping.scheduler == "optuna_hyperband":
        return PrunedByOptuna(rungs(stopping), round(stopping.reduction_factor))
    compared: dict[str, Any] = {"time_attr": "progress", "metric": "elbo", "mode": "max"}
    if stopping.scheduler == "median":
        return _Median(
            **compared, grace_period=stopping.first_percent, min_samples_required=3, min_time_slice=0, hard_stop=True
        )
    return _Asha(
        **compared,
        grace_period=stopping.first_percent,  # type: ignore[arg-type]
        # The end of a trial, at which it is measured, is reported at 100 percent.
        max_t=100,
        stop_last_trials=False,
        reduction_factor=stopping.reduction_factor,
        brackets=HYPERBAND_BRACKETS if stopping.scheduler == "hyperband" else 1,
    )


def halving(stopping: StoppingConfig, at_once: int, ended: int = 0) -> Halving:
    """As `scheduler`, for trials that wait. at_once: that run at a time; ended: that were trained to their ends."""
    return Halving(rungs(stopping), stopping.reduction_factor, at_once, ended)


def remember(made: Scheduler, ended: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> None:
    """Gives a new scheduler the trials that ended before: (name, its (rung, ELBO) pairs) each."""
    for name, values in ended:
        trial = RememberedTrial(trial_id=name)
        made.on_trial_add(None, trial)
        for rung, elbo in values:
            made.on_trial_result(None, trial, {"progress": rung, "elbo": elbo, "settled": True})


@dataclass(frozen=True, kw_only=True)
class RememberedTrial:
    """What Ray's schedulers read of a trial."""

    trial_id: str
    status: str = RayTrial.TERMINATED
