"""The results of measurements: what `RUN/eval/*.json` holds, as frozen dataclasses.

Every result has its protocol. `to_json` gives exactly what its file holds and `from_json` reads it back, files of
earlier versions included.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular
from eval.calibration import CalibratedIntervals, Calibration, CoverageOfImages, RegionCoverage
from eval.protocol import (
    ADDED,
    CompletionProtocol,
    DistanceProtocol,
    LikelihoodProtocol,
    MemorisationProtocol,
    Protocol,
    ResidualsProtocol,
    UncertaintyProtocol,
    VarianceProtocol,
)


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


_UNUSED: tuple[tuple[str, Any], ...] = (
    ("interval_95", None),
    ("versions", {}),
    ("extractor_weights", ""),
    ("extractor_file", ""),
    ("n_compared", 0),
    ("regions", ()),
    ("calibrated", None),
    ("calibrated", ()),
    *ADDED,
)


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
    extractor_weights: str = ""
    """Where the extractor's weights lay, for the command that measures again; empty where none were given."""
    extractor_file: str = ""
    """Where the extractor's TorchScript file lay; empty where it is none."""

    def command(self, run: str, *, draws: bool) -> str:
        """The command that measures the distance of what the run folder `run` holds now, without further measures.

        draws: whether further measures that are asked for draw something
        """
        protocol = self.protocol
        if protocol.source == "reconstruction" and not draws:
            protocol = dataclasses.replace(protocol, seed=0)  # on which nothing depends, and which is refused
        if self.extractor_file:
            named = {**protocol.extractor, "name": self.extractor_file}
            return dataclasses.replace(protocol, extractor=named).command(run)
        weights = f" --extractor-weights {shlex.quote(self.extractor_weights)}" if self.extractor_weights else ""
        return protocol.command(run) + weights

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
class Tried:
    """One value of what is chosen on held-out images."""

    value: float
    """Shrinkage towards independent pixels, number of factors, or images that the common covariance counts for."""
    gain: float
    """Nats per held-out image by which residuals are likelier than under independent pixels."""


@dataclass(frozen=True, kw_only=True)
class ResidualsResult(VarianceResult):
    """Fitted covariances L L^T + D of standardised residuals; the tensors lie beside it."""

    MEASURE: ClassVar[str] = "residuals 1"

    protocol: ResidualsProtocol
    """What they depend on."""
    gain: float
    """Nats per held-out image by which residuals are likelier than under independent pixels, z from q(z|x)."""
    rank: int
    """Columns of L, the most of all components."""
    smallest_variance: float
    """The smallest entry of D, in units of sigma_k(z)^2."""
    cap: float
    """The largest log p(x|z) possible, nats per image."""
    common: tuple[Tried, ...]
    """What was tried for the common covariance: shrinkages for small images, numbers of factors for large ones."""
    strengths: tuple[Tried, ...]
    """What was tried to draw the covariances of components towards the common one; empty for one covariance."""
    images: tuple[int, ...]
    """Training images of each component, or all of them."""
    digest: str
    """Of the tensors."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyResult(Calibration, VarianceResult):
    """Whether a run's variance sigma_k(z)^2 can be trusted."""

    MEASURE: ClassVar[str] = "uncertainty 1"

    protocol: UncertaintyProtocol
    """What the numbers depend on."""
    regions: tuple[RegionCoverage, ...] = ()
    """Of means over regions, where the noise is correlated."""
    calibrated: CalibratedIntervals | None = None
    """Intervals calibrated on held-out images, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How well one method predicts hidden pixels."""

    mean_square_error: Measured
    """Of its mean, over hidden pixels and images."""
    effective_samples: Measured
    """Effective latents of an image."""
    coverage: tuple[CoverageOfImages, ...]
    """Hidden pixels inside the central intervals, by level."""


@dataclass(frozen=True, kw_only=True)
class CompletionResult(VarianceResult):
    """How well hidden pixels of images are predicted from the visible ones."""

    MEASURE: ClassVar[str] = "completion 1"

    protocol: CompletionProtocol
    """What the numbers depend on."""
    methods: Mapping[str, Completed]
    """By method: the mean of the training images, the decoder alone, and the correlated noise."""


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
    """The content of a result's file. Raises InputError where the file holds no result, or is none."""
    data = read_regular(path)
    try:
        content = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and measure again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no result; delete it and measure again")
    return content
