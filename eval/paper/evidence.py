"""What was measured of a plan's trainings, as numbers with standard errors over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.paper.plan import Plan
from eval.paper.record import Record
from eval.paper.wanted import Wanted
from eval.results import Measured

READING = (
    "± is the standard error over the trainings, with different seeds, whose number stands in brackets. The error of a "
    "single training, (1), is within it (over images, or over Monte Carlo runs) and says nothing of another seed."
)


@dataclass(frozen=True, kw_only=True)
class Number(Measured):
    """The mean of a value over trainings; its error is over them where there are several, else within the one."""

    seeds: int = 1
    """Trainings that it is the mean of."""

    def plain(self, decimals: int) -> str:
        """The number with its error where that is known."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:,.{decimals}f}"
        return f"{self.value:,.{decimals}f}{error}"

    def text(self, decimals: int) -> str:
        """The same, with the number of trainings in brackets."""
        return f"{self.plain(decimals)} ({self.seeds})"


def mean_of(values: Sequence[float], within: float | None = None) -> Number | None:
    """The mean over trainings with its standard error; `within` is the error of a single one. None without values."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else within
    return Number(value=statistics.fmean(values), standard_error=error, unit="", seeds=len(values))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A plan and what is known of its trainings."""

    plan: Plan
    records: Mapping[str, Record]
    """By the name of the training."""

    def answers(self, wanted: Wanted) -> dict[int, Any]:
        """The answers of those trainings that have one, by their seed."""
        known = {made.seed: self.records[made.name] for made in wanted.trainings if made.name in self.records}
        key = wanted.question.key
        return {seed: record.results[key] for seed, record in known.items() if key in record.results}

    def values(self, wanted: Wanted) -> dict[int, Measured]:
        """The value of each training that was measured, by its seed."""
        read = {seed: wanted.read(answer) for seed, answer in self.answers(wanted).items()}
        return {seed: value for seed, value in read.items() if value is not None}

    def number(self, wanted: Wanted) -> Number | None:
        """The mean over the trainings that were measured; None where none was."""
        found = list(self.values(wanted).values())
        return mean_of([one.value for one in found], within=found[0].standard_error if len(found) == 1 else None)

    def place(self, place: float | Wanted) -> float | None:
        """A place on an axis, which may itself be a number; None where that was not measured."""
        number = self.number(place) if isinstance(place, Wanted) else None
        return place if isinstance(place, float) else number.value if number else None

    def difference(self, ours: Wanted, theirs: Wanted) -> Number | None:
        """The mean of ours - theirs over common seeds, seed by seed."""
        first, second = self.values(ours), self.values(theirs)
        return mean_of([first[seed].value - second[seed].value for seed in sorted(first.keys() & second.keys())])

    def text(self, wanted: Wanted) -> str:
        """The number as a cell or sentence shows it."""
        number = self.number(wanted)
        return "not measured" if number is None else wanted.form.format(number.text(wanted.decimals))
