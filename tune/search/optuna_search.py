"""Optuna's search behind Ray's interface: several objectives, repeats over seeds, and a study in a file.

The study is a file in the sweep's folder, and what the trials reached is read from their run folders at each start. A
trial that was stopped early is reported as pruned, with its ELBO at the last rung, so that the sampler ranks it below
those that were trained further; one that failed ranks below all. With several objectives, of which Optuna prunes none,
both are reported with the worst values so far.
"""

import contextlib
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune.search.trials import Trial, distinct_draws
from tune.space import Dimension, Fields, canonical, draw
from tune.sweep_config import OBJECTIVES, SweepConfig

# Draws of the sampler that may be known already before one is taken from the random search instead.
_MOST_REPEATS = 30
_NUMBER = "configuration"


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What one trial reached."""

    trial: Trial
    values: tuple[float, ...] | None = None
    """Its final objectives; None where it was stopped or failed, or has not ended."""
    progress: float = 0.0
    """The last rung that it was compared at, in percent of its budget; 0 where it failed."""
    elbo: float = math.nan
    """Its ELBO there."""
    ended: bool = True


class OptunaSearch(Searcher):
    """Takes configurations from a study, gives each to one trial per seed, and reports to it what they reached."""

    def __init__(self, sweep: SweepConfig, count: int, before: Sequence[TrialResult] = ()) -> None:
        """Continues the study of the sweep's folder.

        count: configurations in all. before: the trials that the sweep has started.
        """
        super().__init__()
        self.sweep, self.count = sweep, count
        self._signs = [OBJECTIVES[objective].sign for objective in sweep.objectives]
        self._trials: dict[str, Trial] = {}  # by Ray's id
        self._results: dict[int, list[TrialResult]] = defaultdict(list)
        self._study = self._open_study(before)
        self._open = {self._number(one): one for one in self._study.trials if one.state == TrialState.RUNNING}
        self._known = {canonical(self._fields(one)) for one in self._study.trials if one.state != TrialState.WAITING}
        self._known |= {canonical(one.trial.fields) for one in before}
        self._waiting = [one.trial for one in before if not one.ended]
        started = {(one.trial.number, one.trial.seed) for one in before}
        drawn = {one.trial.number: one.trial.fields for one in before}
        drawn |= {number: self._fields(one) for number, one in self._open.items()}
        self._drawn = len(drawn)
        self._next = max(drawn, default=-1) + 1
        for number, fields in sorted(drawn.items()):
            own = [Trial(phase="search", number=number, seed=seed, fields=fields) for seed in sweep.seeds]
            self._waiting += [trial for trial in own if (number, trial.seed) not in started]
        for one in before:
            if one.ended:
                self._note(one)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray's own copy is not used: the study is a file, and the rest is in the run folders

    def _open_study(self, before: Sequence[TrialResult]) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.sweep.folder / "optuna.journal")))
        way = optuna.study.StudyDirection
        directions = [way.MAXIMIZE if sign > 0 else way.MINIMIZE for sign in self._signs]
        names = optuna.get_all_study_names(storage)
        name = max((one for one in names), key=len, default=self.sweep.name)
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        if any(not self._suits(one) for one in study.trials):
            # A parameter of Optuna keeps its choices for ever. What was found under others is copied where it fits.
            former, name = study, f"{name}+"
            study = optuna.create_study(study_name=name, storage=storage, directions=directions)
            for one in former.trials:
                self._copy(one, study)
        if not study.trials and not before:
            study.enqueue_trial(self.default_parameters())
        # A sampler that starts with the same seed after each restart would draw the same points again.
        seed = self.sweep.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return study

    def default_parameters(self) -> dict[str, Any]:
        """The base's values of the searched fields, as Optuna's parameters, without those outside of the space."""
        given = {one.field: self.sweep.fields.get(one.field) for one in self.sweep.space}
        inside = {one.field: given[one.field] for one in self.sweep.space if one.has(given[one.field])}
        return self._parameters(inside)

    def _suits(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether every choice of the trial's parameters is what the space has today."""
        today = {one.field: _texts(one) for one in self.sweep.space if one.kind == "choice"}
        return all(
            isinstance(kind, optuna.distributions.CategoricalDistribution) == (name in today)
            and (name not in today or list(kind.choices) == today[name])  # type: ignore[attr-defined]
            for name, kind in trial.distributions.items()
            if name in {one.field for one in self.sweep.space}
        )

    def _copy(self, trial: optuna.trial.FrozenTrial, study: optuna.Study) -> None:
        fields = self._fields(trial)
        by_name = {one.field: one for one in self.sweep.space}
        fits = all(name in by_name and by_name[name].has(value) for name, value in fields.items())
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not fits:
            return
        with contextlib.suppress(ValueError):
            study.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=self._parameters(fields),
                    distributions={name: _distribution(by_name[name]) for name in fields},
                    intermediate_values=trial.intermediate_values,
                    user_attrs={_NUMBER: self._number(trial)},
                )
            )

    def _parameters(self, fields: Fields) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in self.sweep.space:
            if one.field in fields:
                key = canonical(fields[one.field])
                same = [text for text in _texts(one) if canonical(json.loads(text)) == key]
                found[one.field] = same[0] if same else fields[one.field]
        return found

    @staticmethod
    def _number(trial: optuna.trial.FrozenTrial) -> int:
        return int(trial.user_attrs.get(_NUMBER, trial.number))

    def _fields(self, trial: optuna.trial.FrozenTrial) -> Fields:
        kinds = optuna.distributions.CategoricalDistribution
        texts = {name for name, kind in trial.distributions.items() if isinstance(kind, kinds)}
        return {name: json.loads(value) if name in texts else value for name, value in trial.params.items()}

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Ignores Ray's settings: objectives and space are those of the sweep's configuration."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """The configuration of Ray's next trial."""
        if not self._waiting:
            fields = self._draw() if self._drawn < self.count else None
            if fields is None:
                return Searcher.FINISHED
            self._drawn += 1
            self._waiting = [
                Trial(phase="search", number=self._next, seed=seed, fields=fields) for seed in self.sweep.seeds
            ]
            self._next += 1
        trial = self._trials[trial_id] = self._waiting.pop(0)
        return {"trial": asdict(trial)}

    def _draw(self) -> Fields | None:
        """A configuration that was not drawn before; None where there is none left."""
        for _ in range(_MOST_REPEATS):
            if (fields := self._ask()) is not None:
                return fields
        for fields in distinct_draws(self.sweep.space, self.sweep.seed):
            if canonical(fields) not in self._known:
                self._study.enqueue_trial(self._parameters(fields))
                return self._ask()
        return None

    def _ask(self) -> Fields | None:
        asked = self._study.ask()
        fields = draw(self.sweep.space, lambda dimension: _suggested(asked, dimension))
        if canonical(fields) in self._known:
            self._study.tell(asked, state=TrialState.FAIL)
            return None
        self._known.add(canonical(fields))
        asked.set_user_attr(_NUMBER, self._next)
        self._open[self._next] = self._study.trials[asked.number]
        return fields

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Notes what a trial reached. One that ended by a fault of the machine is tried again another time."""
        trial = self._trials.pop(trial_id)
        if error:
            return
        found = result or {}
        values = [found.get(objective) for objective in self.sweep.objectives]
        numbers = tuple(float(value) for value in values if value is not None and math.isfinite(value))
        if found.get("finished") and len(numbers) == len(values):
            self._note(TrialResult(trial=trial, values=numbers))
        elif found.get("failed") or found.get("finished") or "progress" not in found:
            self._note(TrialResult(trial=trial))
        else:
            self._note(TrialResult(trial=trial, progress=found["progress"], elbo=found["elbo"]))

    def _note(self, result: TrialResult) -> None:
        """Reports a configuration to the study when the last of its seeds has ended."""
        number = result.trial.number
        self._results[number].append(result)
        if len(self._results[number]) >= len(self.sweep.seeds) and number in self._open:
            self._tell(number)
            if len(self._signs) > 1:  # those that waited for a worst value
                for other in [one for one in self._open if len(self._results[one]) >= len(self.sweep.seeds)]:
                    self._tell(other)

    def _tell(self, number: int) -> None:
        results = self._results[number]
        columns = [one.values for one in results if one.values is not None]
        whole = len(columns) == len(results)
        if whole:
            self._study.tell(self._open.pop(number).number, [statistics.fmean(c) for c in zip(*columns, strict=True)])
            return
        if len(self._signs) > 1:
            told = [one.values for one in self._study.get_trials(states=(TrialState.COMPLETE,))]
            if told:
                worst = [min(c) if s > 0 else max(c) for s, c in zip(self._signs, zip(*told, strict=True), strict=True)]
                self._study.tell(self._open.pop(number).number, worst)
            return  # until then the sampler takes it for a bad one, as every one that runs
        frozen = self._open.pop(number)
        behind = min((one for one in results if one.values is None), key=lambda one: one.progress)
        if behind.progress and math.isfinite(behind.elbo):
            open_trial = optuna.trial.Trial(self._study, frozen._trial_id)
            open_trial.report(self._signs[0] * behind.elbo, step=max(1, round(behind.progress)))
        self._study.tell(frozen.number, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing: the study is a file, and the rest is in the run folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Is not used."""


def _texts(dimension: Dimension) -> list[str]:
    # Optuna takes texts as categories, but no lists.
    return [json.dumps(value) for value in dimension.values] if dimension.kind == "choice" else []


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    if dimension.kind == "choice":
        return optuna.distributions.CategoricalDistribution(_texts(dimension))
    low, high = dimension.values
    if dimension.kind == "randint":
        return optuna.distributions.IntDistribution(low, high)
    return optuna.distributions.FloatDistribution(low, high, log=dimension.kind == "loguniform")


def _suggested(asked: optuna.Trial, dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return json.loads(asked.suggest_categorical(dimension.field, _texts(dimension)))
    low, high = dimension.values
    if dimension.kind == "randint":
        return asked.suggest_int(dimension.field, low, high)
    return asked.suggest_float(dimension.field, low, high, log=dimension.kind == "loguniform")
