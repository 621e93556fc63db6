"""What was measured of a plan's trainings, as numbers with standard errors over seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.paper.asks import Ask
from eval.paper.jobs import Training
from eval.paper.plan import Plan
from eval.paper.record import Record

DISTANCE = ("values", "frechet_distance", "value")


@dataclass(frozen=True, kw_only=True)
class Number:
    """A measured number and how far it may be off."""

    value: float
    error: float | None = None
    """Standard error: over `seeds` trainings where there are several, else within the one; None where it is unknown."""
    seeds: int = 1
    """Trainings that it is the mean of."""

    def text(self, decimals: int) -> str:
        """The number, its error where it is known, and of how many trainings both are."""
        error = "" if self.error is None else f" ± {self.error:,.{decimals}f}"
        return f"{self.value:,.{decimals}f}{error} ({self.seeds})"


READING = (
    "± is the standard error over the trainings, with different seeds, whose number stands in brackets. The error of a "
    "single training, (1), is within it (over images, or over Monte Carlo runs) and says nothing of another seed."
)


def mean_of(values: Sequence[float], within: float | None = None) -> Number | None:
    """The mean over trainings with its standard error; `within` is the error of a single one."""
    if not values:
        return None
    if len(values) == 1:
        return Number(value=values[0], error=within)
    return Number(
        value=statistics.fmean(values),
        error=statistics.stdev(values) / math.sqrt(len(values)),
        seeds=len(values),
    )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A plan and what is known of its trainings."""

    plan: Plan
    records: Mapping[str, Record]
    """By the name of the training."""

    def result(self, training: Training, ask: Ask) -> dict[str, Any] | None:
        """The answer of one training to one question, or None where it was not measured."""
        record = self.records.get(training.name)
        return record.results.get(ask.key) if record else None

    def results(self, trainings: Iterable[Training], ask: Ask) -> list[dict[str, Any]]:
        """The answers of those trainings that have one."""
        return [found for training in trainings if (found := self.result(training, ask)) is not None]

    def number(self, trainings: Iterable[Training], ask: Ask, *path: str, error: str = "") -> Number | None:
        """The mean over trainings of the number at `path` of each result.

        error: name beside the number of its error within one training, such as standard_error.
        """
        found = [at(result, path) for result in self.results(trainings, ask)]
        within = None
        if error and len(found) == 1:
            (result,) = self.results(trainings, ask)
            within = at(result, (*path[:-1], error))
        return mean_of([float(value) for value in found if value is not None], within)

    def distance(self, trainings: Iterable[Training], ask: Ask) -> Number | None:
        """The mean Frechet distance."""
        return self.number(trainings, ask, *DISTANCE)

    def likelihood(self, trainings: Iterable[Training], ask: Ask, name: str) -> Number | None:
        """The mean of one value of a likelihood, such as iwae_q_hat."""
        return self.number(list(trainings), ask, "values", name, "value", error="standard_error")

    def difference(self, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Number | None:
        """The mean over common seeds of ours - theirs, seed by seed."""
        common = sorted(ours.keys() & theirs.keys())
        return mean_of([ours[seed] - theirs[seed] for seed in common])


def at(result: Mapping[str, Any] | None, path: Sequence[str]) -> Any:
    """The entry at `path`, or None where there is none."""
    inner: Any = result
    for name in path:
        if not isinstance(inner, Mapping) or name not in inner:
            return None
        inner = inner[name]
    return inner


def text_of(number: Number | None, decimals: int) -> str:
    """The number as text, or that it is missing."""
    return "not measured" if number is None else number.text(decimals)
