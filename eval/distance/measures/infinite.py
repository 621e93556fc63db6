"""The Frechet distance that infinitely many samples would have (Chong and Forsyth 2020).

The distance of n samples is too large by about c / n, and c differs from model to model. The distance of all n and the
mean distance of their two halves lie on a line over 1 / n, which is extrapolated to 1 / n = 0.

Another n samples would give another value. How far it moves is found by leaving out one of GROUPS groups of images at a
time (the delete-a-group jackknife), which sees the scatter of the samples; the scatter of subsets around the line does
not, as they are all of the same samples.
"""

import torch
from scipy import stats
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.measures.frechet import frechet_distance
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

GROUPS = 10
_COVERAGE = 0.95


def frechet_at_infinity(features: Tensor, reference: FeatureStatistics, *, seed: int) -> Estimate:
    """The distance at infinite n with its standard error and 95 % interval.

    features: (n, d), dealt out by a seeded shuffle; reference: kept whole, whatever its own size.

    The interval is for infinitely many samples and this reference. It needs n of some times d: where the features' own
    covariance is singular, the distance no longer falls as c / n. Raises InputError for fewer than 2 GROUPS + 2 images.
    """
    n = len(features)
    if n < 2 * GROUPS + 2:
        raise InputError(f"{n} images are too few to extrapolate from; use at least {2 * GROUPS + 2}", parameter="n")
    shuffled = features[torch.randperm(n, generator=torch.Generator().manual_seed(seed))].double()
    mean, covariance = reference.mean(), reference.covariance()

    def extrapolated(x: Tensor) -> float:
        whole, *halves = (
            frechet_distance(part.mean(0), part.T.cov(), mean, covariance) for part in (x, x[::2], x[1::2])
        )
        # The line through (1 / n, whole) and (2 / n, halves), at 0.
        return 2 * whole - sum(halves) / 2

    value = extrapolated(shuffled)
    group = torch.arange(n) * GROUPS // n
    without = torch.tensor([extrapolated(shuffled[group != left_out]) for left_out in range(GROUPS)])
    error = float(((GROUPS - 1) * without.var(correction=0)).sqrt())
    reach = error * float(stats.t.ppf((1 + _COVERAGE) / 2, GROUPS - 1))
    return Estimate(value=value, standard_error=error, interval_95=(value - reach, value + reach))


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    return [frechet_at_infinity(compared.kept_features(), reference, seed=seed)]


MEASURE = Measure(
    name="infinite",
    help="the distance at infinite n with an interval",
    numbers=[
        Number(
            name="frechet_distance_at_infinite_n",
            title="Frechet, infinite n",
            unit="squared feature units",
            decimals=2,
            better="lower",
        )
    ],
    function=_measure,
    version=2,
)
