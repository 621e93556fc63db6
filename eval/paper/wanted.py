"""What is wanted of the trainings: numbers, each read from the answers to one question, and the exhibits they fill."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_shards.io.configuration import build
from eval.paper.plan import Measurements, MixtureForm
from eval.paper.trainings import Training
from eval.results import DistanceResult, LikelihoodResult, Measured, MemorisationResult, Result, UncertaintyResult

BEST = "best"
"""Label of the mixture whose number of components held-out codes choose among `Measurements.candidates`."""

RESULTS: Mapping[str, type[Result]] = {
    "fid": DistanceResult,
    "likelihood": LikelihoodResult,
    "uncertainty": UncertaintyResult,
    "memorisation": MemorisationResult,
}
"""The type of a question's answers by its kind; those of kind mixture are the summary of the fit, a mapping."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A measurement of one set of weights of a training."""

    kind: str
    """One of RESULTS, or mixture."""
    weights: str = "final"
    """final or stage1."""
    source: str = ""
    """Images of a distance, and of a memorisation where they are not g(z)."""
    mixture: str = ""
    """Label of a `MixtureForm`, or BEST; empty where no mixture is needed."""

    @property
    def key(self) -> str:
        """The name under which answers are kept, such as `fid q_hat 32-full-posterior final`."""
        return " ".join(word for word in (self.kind, self.source, self.mixture, self.weights) if word)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A number: the mean over trainings of one value of their answers to a question."""

    trainings: tuple[Training, ...]
    question: Question
    read: Callable[[Any], Measured | None]
    """The value in an answer with its error within the training; None where the answer does not have it."""
    decimals: int = 1
    form: str = "{}"
    """Text around the number."""


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

    def distance(self, source: str = "q_hat") -> Wanted:
        """The Frechet distance of images of a source."""
        mixture = self.mixture if source in ("q_hat", "transported") else ""
        return self._wanted("fid", lambda result: result.values["frechet_distance"], source=source, mixture=mixture)

    def likelihood(self, name: str, decimals: int = 1, form: str = "{}") -> Wanted:
        """One value of a likelihood, such as iwae_q_hat, or what it says of the model: cap or dataset_variance."""

        def read(result: LikelihoodResult) -> Measured | None:
            if name in ("cap", "dataset_variance"):
                return Measured(value=getattr(result, name), standard_error=None, unit="")
            return result.values.get(name)

        return self._wanted("likelihood", read, decimals, form)

    def divergence(self, decimals: int = 3) -> Wanted:
        """KL(q_hat || p); within one training its error is the deviation over Monte Carlo runs."""

        def read(result: LikelihoodResult) -> Measured | None:
            kl = result.latent_kl
            return Measured(value=kl.value, standard_error=kl.standard_deviation, unit=kl.unit) if kl else None

        return self._wanted("likelihood", read, decimals)

    def codes(self, part: str) -> Wanted:
        """Log-likelihood of codes under the mixture: of those it was fitted to (train), or of others (held_out)."""

        def read(summary: Mapping[str, Any]) -> Measured:
            return Measured(value=summary[part]["nats"], standard_error=summary[part]["standard_error"], unit="nats")

        return self._wanted("mixture", read, 3)

    def nearer(self, space: str, source: str = "", form: str = "{}") -> Wanted:
        """Chance that a sample is nearer to training data than a new image is. space: pixel_distance, code_distance."""
        return self._wanted("memorisation", lambda r: getattr(r, space).chance_nearer, 2, form, source=source)

    def calibration(self) -> Wanted:
        """The calibration of the predicted variance, which is shown as a whole."""
        return self._wanted("uncertainty", lambda result: None, mixture="")

    def _wanted(
        self,
        kind: str,
        read: Callable[[Any], Measured | None],
        decimals: int = 1,
        form: str = "{}",
        *,
        source: str = "",
        mixture: str | None = None,
    ) -> Wanted:
        label = self.mixture if mixture is None else mixture
        question = Question(kind=kind, source=source, mixture=label, weights=self.weights)
        return Wanted(trainings=self.trainings, question=question, read=read, decimals=decimals, form=form)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A cell that compares two numbers seed by seed: ours - theirs, or whether that helps."""

    ours: Wanted
    theirs: Wanted
    show: Callable[[Any], str]
    """Of the mean difference, a `Number`, or of None where nothing was measured."""


Cell = str | Wanted | Change


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture that trained weights draw."""

    training: Training
    name: str
    """One of `figures.FIGURES`."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture of numbers: lines over an axis, or bars."""

    name: str
    """File name without its ending."""
    caption: str
    axis: str
    """Title of the horizontal axis of lines, or of the vertical one of bars."""
    lines: Mapping[str, Mapping[str, Sequence[tuple[float | Wanted, Wanted]]]] | None = None
    """By panel and series: a place and a number there. A place that is itself a number is marked by a star."""
    bars: Mapping[str, Mapping[str, Wanted]] | None = None
    """By group and series."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One table or figure: everything that is wanted for it."""

    title: str
    text: Sequence[str | Wanted] = ()
    """What must be known to read it."""
    head: tuple[str, ...] = ()
    rows: Sequence[Sequence[Cell]] = ()
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
        if self.chart and self.chart.bars:
            found += [one for group in self.chart.bars.values() for one in group.values()]
        return [one for one in (*found, self.calibration) if isinstance(one, Wanted)]


def form_of(label: str) -> MixtureForm:
    """The mixture that a label names."""
    components, _, encodings = label.split("-")
    return build(MixtureForm, {"components": int(components), "encodings": encodings})


def measured_as(key: str, result: Any, measure: Measurements) -> bool:
    """Whether a result was measured as the plan says now: as many images, by the same extractor, with the same seed."""
    if key.startswith("pythae "):
        same = (result["extractor"]["name"], result["samples"]) == (measure.extractor, measure.distance_images)
        return same and result["reference"] == measure.distance_split
    if not isinstance(result, Result):
        return True
    protocol: Any = result.protocol  # type: ignore[attr-defined]
    if protocol.seed != measure.seed:
        return False
    if isinstance(result, DistanceResult):
        same = (protocol.extractor["name"], protocol.split) == (measure.extractor, measure.distance_split)
        return same and (protocol.source == "half" or protocol.n == measure.distance_images)
    if isinstance(result, MemorisationResult):
        return bool(protocol.n == measure.memorisation_images)
    if isinstance(result, LikelihoodResult) and protocol.importance_samples != measure.importance_samples:
        return False
    return bool(protocol.n == measure.likelihood_images)
