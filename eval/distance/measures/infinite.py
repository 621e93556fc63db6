"""The Frechet distance that infinitely many samples would have (Chong and Forsyth 2020).

The distance of n samples is too large by about c / n, and c differs from model to model. Distances of subsets of
several sizes lie on a line over 1 / n, which is extrapolated to 1 / n = 0; a bootstrap over them gives an interval.
"""

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.measures.frechet import frechet_distance
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

_SIZES, _SUBSETS, _RESAMPLES = 5, 3, 2000
_COVERAGE = 0.95


def frechet_at_infinity(features: Tensor, reference: FeatureStatistics, *, seed: int) -> Estimate:
    """The distance at infinite n with its 95 % interval.

    features: (n, d), of which seeded subsets of n/2 to n are taken; reference: kept whole, whatever its own size.

    The interval comes from resampling the fitted subsets; it says how well the line is known, for this reference.
    Raises InputError where the smallest subset would have fewer than two vectors.
    """
    n = len(features)
    if n < 4:
        raise InputError(f"{n} images are too few to extrapolate from; use at least 4", parameter="n")
    rng = np.random.default_rng(seed)
    mean, covariance = reference.mean(), reference.covariance()
    inverse_sizes, distances = [], []
    for size in np.linspace(n // 2, n, _SIZES).astype(int):
        # All n vectors make one subset only.
        for _ in range(_SUBSETS if size < n else 1):
            chosen = features[torch.from_numpy(rng.permutation(n)[:size])].double()
            inverse_sizes.append(1 / size)
            distances.append(frechet_distance(chosen.mean(0), chosen.T.cov(), mean, covariance))
    x, y = np.array(inverse_sizes), np.array(distances)
    value = _intercept(x, y)
    resampled = [_intercept(x[i], y[i]) for i in rng.integers(0, len(x), (_RESAMPLES, len(x))) if np.ptp(x[i]) > 0]
    low, high = np.quantile(resampled, [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2])
    return Estimate(value=value, interval_95=(float(low), float(high)))


def _intercept(x: np.ndarray, y: np.ndarray) -> float:
    """The least-squares line through the points at x = 0."""
    slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    return float(y.mean() - slope * x.mean())


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
)
