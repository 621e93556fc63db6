"""What the exhibits want, each number read from the answers to one question, and what is known of it over seeds."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eval.distance.measures.measure import Number
from eval.paper.plan import Plan, Training
from eval.paper.record import Question, Record
from eval.results import LatentDivergence, Measured

READING = (
    "± is the standard error over the trainings, with different seeds, whose number stands in brackets. The error of a "
    "single training, (1), is within it (over images, or over Monte Carlo runs) and says nothing of another seed."
)

SOURCES = ("q_hat", "prior", "flow", "transported", "reconstruction", "train", "half")
"""Images whose Frechet distance may be wanted."""
VALUES: Mapping[str, tuple[str, str, int]] = {
    **{source: ("fid", "values.frechet_distance", 1) for source in SOURCES},
    "iwae_prior": ("likelihood", "values.iwae_prior", 1),
    "iwae_q_hat": ("likelihood", "values.iwae_q_hat", 1),
    "elbo": ("likelihood", "values.elbo", 1),
    "square error": ("likelihood", "values.mean_square_error", 5),
    "bits": ("likelihood", "values.bits_per_dimension_q_hat", 3),
    "cap": ("likelihood", "cap", 0),
    "variance": ("likelihood", "dataset_variance", 5),
    "KL": ("likelihood", "latent_kl", 3),
    "training codes": ("mixture", "train", 3),
    "held-out codes": ("mixture", "held_out", 3),
    "nearer image": ("memorisation", "pixel_distance.chance_nearer", 2),
    "nearer code": ("memorisation", "code_distance.chance_nearer", 2),
    "calibration": ("uncertainty", "", 0),
}
"""By name: the kind of question, where the value stands in its answer, and the decimals that are shown."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A number: the mean over trainings of one value of their answers to a question."""

    trainings: tuple[Training, ...]
    question: Question
    path: str
    decimals: int
    form: str = "{}"
    """Text around the number."""

    def read(self, answer: Any) -> Measured | None:
        """The value in an answer, with its error within the training; None where the answer does not have it."""
        for name in self.path.split("."):
            answer = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name)
        if isinstance(answer, int | float):
            return Measured(value=answer, standard_error=None, unit="")
        if isinstance(answer, LatentDivergence):
            return Measured(value=answer.value, standard_error=answer.standard_deviation, unit=answer.unit)
        if isinstance(answer, Mapping):
            return Measured(value=answer["nats"], standard_error=answer["standard_error"], unit="nats")
        return answer


@dataclass(frozen=True, kw_only=True)
class Row:
    """Trainings at one set of weights, with the mixture that is fitted to their codes: what may be wanted of them."""

    trainings: tuple[Training, ...]
    mixture: str
    """Label of the mixture; empty where samples are not from one."""
    weights: str = "final"
    method: str = ""
    """The paper's name of the method."""
    title: str = ""
    """In the first column of a table."""

    def want(self, name: str, *, source: str = "", decimals: int | None = None, form: str = "{}") -> Wanted:
        """One of VALUES. source: images of a memorisation other than g(z)."""
        kind, path, usual = VALUES[name]
        source = name if kind == "fid" else source
        mixture = self.mixture if kind != "uncertainty" and source in ("", "q_hat", "transported") else ""
        question = Question(kind=kind, source=source, mixture=mixture, weights=self.weights)
        decimals = usual if decimals is None else decimals
        return Wanted(trainings=self.trainings, question=question, path=path, decimals=decimals, form=form)

    def further(self, number: Number) -> Wanted:
        """A number of a further measure of samples from q_hat, from the answer that has their Frechet distance."""
        return replace(self.want("q_hat", decimals=number.decimals), path=f"values.{number.name}")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A cell that compares two numbers seed by seed: ours - theirs, or whether that helps."""

    ours: Wanted
    theirs: Wanted
    show: Callable[[Any], str]
    """Of the mean difference, a `Mean`, or of None where nothing was measured."""


Cell = str | float | Wanted | Change


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture that trained weights draw: one of `figures.FIGURES`."""

    training: Training
    name: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture of numbers: lines over an axis in one or several panels, or bars in groups."""

    name: str
    """File name without its ending."""
    caption: str
    axis: str
    """Title of the horizontal axis of lines, or of the vertical one of bars."""
    points: Sequence[tuple[str | float | Wanted, Mapping[str, Wanted]]]
    """(group of bars or place on the axis, numbers by name). A place that is wanted itself gets a star."""
    panels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of lines, by title: the name of the number that each series shows. Empty for bars."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One table or figure: everything that is wanted for it."""

    title: str
    text: Sequence[str | Wanted] = ()
    """What must be known to read it."""
    head: tuple[str, ...] = ()
    rows: Sequence[Sequence[Cell]] = ()
    caption: str = ""
    """Of the table of these rows."""
    chart: Chart | None = None
    drawings: Sequence[Drawing] = ()
    remarks: Sequence[str] = ()
    """Keys of the paper's remarks."""
    calibration: Wanted | None = None
    """An answer that is shown whole, in a table of its own."""

    @property
    def wanted(self) -> list[Wanted]:
        """Everything that is measured for it, in the order of its cells."""
        cells = [cell for row in (*self.rows, self.text) for cell in row]
        found = [one for cell in cells for one in ((cell.ours, cell.theirs) if isinstance(cell, Change) else (cell,))]
        if self.chart:
            found += [one for _, series in self.chart.points for one in series.values()]
        return [one for one in (*found, self.calibration) if isinstance(one, Wanted)]


FEWEST_SEEDS = 3
"""Trainings with different seeds from which an error is known well enough for a claim."""


def too_few(seeds: int) -> str:
    """What stands in the place of a claim that rests on fewer than FEWEST_SEEDS trainings; else empty."""
    return {1: "one seed", 2: "two seeds"}.get(seeds, "")


@dataclass(frozen=True, kw_only=True)
class Mean(Measured):
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


def mean_of(values: Sequence[float], within: float | None = None) -> Mean | None:
    """The mean over trainings with its standard error; `within` is the error of a single one. None without values."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else within
    return Mean(value=statistics.fmean(values), standard_error=error, unit="", seeds=len(values))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A plan and what is known of its trainings."""

    plan: Plan
    records: Mapping[str, Record]
    """By the name of the training."""

    def answers(self, wanted: Wanted) -> dict[int, Any]:
        """The answers of those trainings that have one, by their seed."""
        known = {one.seed: self.records[one.name] for one in wanted.trainings if one.name in self.records}
        key = wanted.question.key
        return {seed: record.results[key] for seed, record in known.items() if key in record.results}

    def values(self, wanted: Wanted) -> dict[int, Measured]:
        """The value of each training that was measured, by its seed."""
        read = {seed: wanted.read(answer) for seed, answer in self.answers(wanted).items()}
        return {seed: value for seed, value in read.items() if value is not None}

    def number(self, wanted: Wanted) -> Mean | None:
        """The mean over the trainings that were measured; None where none was."""
        found = list(self.values(wanted).values())
        return mean_of([one.value for one in found], within=found[0].standard_error if len(found) == 1 else None)

    def numbers(self, wanted: Mapping[Any, Wanted]) -> dict[Any, Mean]:
        """Those of several that were measured."""
        return {name: number for name, one in wanted.items() if (number := self.number(one))}

    def place(self, place: str | float | Wanted) -> Any:
        """A place on an axis, which may itself be a number; None where that was not measured."""
        number = self.number(place) if isinstance(place, Wanted) else None
        return number and number.value if isinstance(place, Wanted) else place

    def difference(self, ours: Wanted, theirs: Wanted) -> Mean | None:
        """The mean of ours - theirs over common seeds, seed by seed."""
        first, second = self.values(ours), self.values(theirs)
        return mean_of([first[seed].value - second[seed].value for seed in sorted(first.keys() & second.keys())])

    def text(self, cell: Cell) -> str:
        """What a cell or a sentence shows."""
        if isinstance(cell, str | float):
            return cell if isinstance(cell, str) else f"{cell:g}"
        if isinstance(cell, Change):
            return cell.show(self.difference(cell.ours, cell.theirs))
        number = self.number(cell)
        return "not measured" if number is None else cell.form.format(number.text(cell.decimals))
