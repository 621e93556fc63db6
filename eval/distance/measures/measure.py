"""What a measure of the distance between two sets of images is. Each file of this folder declares one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.distance.statistics import FeatureStatistics
from eval.results import Measured


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number that a measure gives."""

    name: str
    """Its key among the values of a result's file."""
    title: str
    """Its column in a table."""
    unit: str
    """Its unit in words."""
    decimals: int
    """Digits after the point in a table."""
    better: Literal["lower", "higher"]
    """Which direction is the better one."""

    @property
    def column(self) -> str:
        """The title of its column, with an arrow in the better direction."""
        return f"{self.title} {'↑' if self.better == 'higher' else '↓'}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with what is known of its error."""

    value: float
    standard_error: float | None = None
    interval_95: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A function of the features of two sets of images, with the names of what it gives."""

    name: str
    """What `--also` calls it."""
    help: str
    """What it gives, for the command's help."""
    numbers: Sequence[Number]
    """The numbers that it gives."""
    function: Callable[[FeatureStatistics, FeatureStatistics, int], Sequence[Estimate]]
    """The statistics of the compared set and of the reference, and a seed, to one estimate for each of `numbers`."""
    needs_features: bool = True
    """True where it needs feature vectors and not only their sums."""
    draws: bool = True
    """True where the seed matters."""
    version: int = 1
    """Of the definition; a number by another one is not current."""

    def __call__(self, compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> Mapping[str, Measured]:
        """The measured numbers by name."""
        estimates = self.function(compared, reference, seed)
        return {
            number.name: Measured(
                value=estimate.value,
                standard_error=estimate.standard_error,
                interval_95=estimate.interval_95,
                unit=number.unit,
            )
            for number, estimate in zip(self.numbers, estimates, strict=True)
        }
