"""The results of measurements: what `RUN/eval/*.json` holds, as frozen dataclasses.

Every result has its protocol. `to_json` gives exactly what its file holds and `from_json` reads it back, files of
earlier versions included.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from eval.protocol import DistanceProtocol, LikelihoodProtocol, MemorisationProtocol, Protocol, VarianceProtocol


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number with what is known of its error."""

    value: float
    """The number."""
    standard_error: float | None
    """Its standard error; None where it is unknown."""
    interval_95: tuple[float, float] | None = None
    """The ends of its 95 % interval; None where none was computed."""
    unit: str
    """Of value, error and interval, in words."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How all results are written and read. The fields of a subclass are those of its file, in their order."""

    def to_json(self) -> dict[str, Any]:
        """The content of the result's file."""
        return dataclasses.asdict(self, dict_factory=_without_unused)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The result in the content of a file. Raises InputError that names the field where it is of another form."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or cls.__name__
            raise InputError(f"{field}: {first['msg']}; delete the result and measure again") from error

    def save(self, path: Path) -> None:
        """Writes the result's file."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """The result in a file. Raises InputError that names the file where it holds none of this kind."""
        content = _read_record(path)
        try:
            return cls.from_json(content)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _without_unused(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Fields without those that most results do not use, and earlier ones do not have."""
    return {name: value for name, value in fields if (name, value) not in _UNUSED}


_UNUSED: tuple[tuple[str, Any], ...] = (("interval_95", None), ("versions", {}), ("precision", "highest"))


@dataclass(frozen=True, kw_only=True)
class VarianceResult(Result):
    """A result on images of a split that depends on the likelihood's variance."""

    MEASURE: ClassVar[str]
    """The measurement with the version of its definition, as its protocols have it."""

    protocol: VarianceProtocol
    """What the numbers depend on."""

    @property
    def is_of_this_version(self) -> bool:
        """Whether it was measured by the definition that is used now."""
        return self.protocol.measure.partition(",")[0] == self.MEASURE


@dataclass(frozen=True, kw_only=True)
class DistanceResult(Result):
    """How far a set of images is from the real images of a split."""

    label: str
    """What the Frechet distance of this extractor is called in print."""
    values: Mapping[str, Measured]
    """"frechet_distance", and what the further measures gave, by name."""
    also: tuple[str, ...]
    """The further measures, sorted."""
    below_protocol: bool
    """True where the smaller side has fewer images than a distance from this split should have."""
    remarks: tuple[str, ...]
    """What a reader must know to read the numbers right."""
    protocol: DistanceProtocol
    """What the numbers depend on."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Version of the definition of each measure that gave the values, by name; 1 where it is not there."""

    @property
    def value(self) -> float:
        """The Frechet distance, in squared feature units."""
        return self.values["frechet_distance"].value

    @property
    def error(self) -> float | None:
        """The standard error of the Frechet distance; None where it is unknown."""
        return self.values["frechet_distance"].standard_error


@dataclass(frozen=True, kw_only=True)
class LatentDivergence:
    """KL(q_hat || p) by Monte Carlo, as in the paper's Table 1."""

    value: float
    """Mean over the runs, in nats."""
    standard_deviation: float
    """Over the runs, of one run."""
    samples: int
    """Samples of a run."""
    runs: int
    """Independent estimates."""
    unit: str
    """nats."""


@dataclass(frozen=True, kw_only=True)
class LikelihoodResult(VarianceResult):
    """How likely held-out images are."""

    MEASURE: ClassVar[str] = "likelihood 1"

    protocol: LikelihoodProtocol
    """What the numbers depend on."""
    values: Mapping[str, Measured]
    """Means over the images by name, see `eval.measurements.likelihood`."""
    active_dimensions: int
    """Latents whose posterior mean varies over the images."""
    latent_kl: LatentDivergence | None
    """Of the fitted mixture from the prior; None where no mixture was measured."""
    cap: float
    """The largest log p(x|z) possible, from the smallest variance possible, nats per image."""
    dataset_variance: float
    """sigma^2 of the data set, squared pixel units."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many pixels lie inside the central interval of one level."""

    level: float
    """The part of the pixels that a calibrated variance has inside."""
    value: float
    """The part that is inside."""


@dataclass(frozen=True, kw_only=True)
class CoverageOfImages(Coverage):
    """The mean over images."""

    standard_error: float | None
    """Over the images; None for a single image."""


@dataclass(frozen=True, kw_only=True)
class UpperHalf:
    """Calibration of the pixels whose predicted variance is above the median."""

    coverage: tuple[Coverage, ...]
    """By level."""
    mean_square_error: float
    """Squared pixel units."""
    variance: float
    """Mean predicted variance, squared pixel units."""


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Standardised residuals (x - g) / sigma."""

    mean: float
    """0 where calibrated."""
    standard_deviation: float
    """1 where calibrated."""
    edges: tuple[float, ...]
    """Of the histogram's bins, in standard deviations, (E,)."""
    density: tuple[float, ...]
    """In each bin, (E - 1,)."""
    beyond: float
    """Part of the residuals outside of all bins."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Pixels grouped by their predicted variance into groups of equal size."""

    variance: tuple[float, ...]
    """Mean predicted variance of each group, increasing, (G,)."""
    square_error: tuple[float, ...]
    """Mean squared error of each group, (G,): equal to `variance` where the prediction is calibrated."""


@dataclass(frozen=True, kw_only=True)
class Sparsification:
    """How the mean squared error of what is kept falls as the most uncertain pixels are left out (Ilg et al. 2018).

    Errors are relative to the mean squared error of all pixels, so that every curve starts at 1.
    """

    left_out: tuple[float, ...]
    """Parts left out, 0 up to 0.95, (P,)."""
    by_variance: tuple[float, ...]
    """Left out by predicted variance, largest first, (P,)."""
    by_error: tuple[float, ...]
    """Left out by the error itself, the best order there is, (P,)."""
    area: float
    """Area between the two curves: 0 is a perfect order."""
    area_of_chance: float
    """The same area for an order by chance, whose curve stays at 1: an uninformative variance has this."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether predicted variances say how far the predictions are off, and how much they differ."""

    coverage: tuple[CoverageOfImages, ...]
    """By level, increasing."""
    upper_half: UpperHalf | None
    """The same for the more uncertain half of the pixels; None where all variances are equal."""
    residuals: Residuals
    """Errors in units of their predicted deviation."""
    correlation_of_variance_and_square_error: float
    """Pearson's, over pixels."""
    rank_correlation_over_pixels: float
    """Spearman's, of variance and squared error."""
    rank_correlation_over_images: float
    """Spearman's, of their means over each image."""
    reliability: Reliability
    """Error against predicted variance."""
    sparsification: Sparsification
    """How well the variance orders pixels by their error."""
    log_likelihood_gain: float
    """Nats per image by which these variances beat the best single one; below 0 where they are worse."""
    mean_square_error: float
    """Squared pixel units."""
    mean_variance: float
    """Squared pixel units."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyResult(Calibration, VarianceResult):
    """Whether a run's variance sigma_k(z)^2 can be trusted."""

    MEASURE: ClassVar[str] = "uncertainty 1"


@dataclass(frozen=True, kw_only=True)
class Centre:
    """Of the distances of a set to what is nearest to each."""

    median: float
    """Median."""
    mean: float
    """Mean."""


@dataclass(frozen=True, kw_only=True)
class NearestComparison:
    """Distances to the nearest training image or code: of samples, and of images that were not trained on."""

    samples: Centre
    """Of samples."""
    held_out: Centre
    """Of held-out images."""
    chance_nearer: Measured
    """Probability that a sample is nearer than a held-out image, 0.5 where it makes no difference."""


@dataclass(frozen=True, kw_only=True)
class MemorisationResult(VarianceResult):
    """Whether samples are nearer to training images than new images are."""

    MEASURE: ClassVar[str] = "memorisation 1"

    protocol: MemorisationProtocol
    """What the numbers depend on."""
    pixel_distance: NearestComparison
    """Euclidean, over all pixels on the [0, 1] scale."""
    code_distance: NearestComparison
    """Euclidean, over the latents."""


AnyResult = TypeVar("AnyResult", bound=Result)


def measured_before(kind: type[AnyResult], path: Path, protocol: Protocol) -> AnyResult | None:
    """The result that was measured by the same protocol, else None. path: where it is stored, see `result_path`."""
    found = stored_at(path)
    if not found.exists() or "protocol" not in _read_record(found):
        return None
    result = kind.load(found)
    return result if getattr(result, "protocol").address() == protocol.address() else None  # noqa: B009


def result_path(folder: Path, name: str, protocol: Protocol) -> Path:
    """FOLDER/NAME-ADDRESS.json, or FOLDER/NAME-WEIGHTS-ADDRESS.json where the weights are not the final ones.

    Results by different protocols lie side by side.
    """
    stage = "" if protocol.weights == "final" else f"-{protocol.weights}"
    return folder / f"{name}{stage}-{protocol.address()}.json"


def stored_at(path: Path) -> Path:
    """`path`, or the place at which an earlier version stored a result of this name, without its address."""
    former = path.with_name(f"{path.stem.rpartition('-')[0]}.json")
    return former if former.exists() and not path.exists() else path


def stored(kind: type[AnyResult], folder: Path, pattern: str) -> list[AnyResult]:
    """The results in the files of a folder, the newest last. Raises InputError for a damaged one.

    Files of an earlier version without a protocol are left out: nobody knows what they were measured on.
    """
    paths = sorted(folder.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return [kind.load(path) for path in paths if "protocol" in _read_record(path)]


def without_protocol(folder: Path) -> list[Path]:
    """The files of an earlier version that do not say what was measured."""
    paths = (path for name in RESULTS for path in sorted(folder.glob(f"{name}*.json")))
    return [path for path in paths if "protocol" not in _read_record(path)]


RESULTS = ("likelihood", "uncertainty", "fid", "memorisation")
"""The commands that store results, whose files are named after them."""


def _read_record(path: Path) -> dict[str, Any]:
    """The content of a result's file. Raises InputError where the file holds no result."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and measure again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no result; delete it and measure again")
    return content
