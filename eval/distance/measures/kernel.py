"""The kernel distance (KID, Binkowski et al. 2018): squared MMD of features over all pairs, unbiased, with its error.

Subsets, as other programs use, leave most pairs out: 100 of 1000 images add their choice to the noise of the images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

_ROWS = 1024
"""Rows and columns of a kernel matrix held at a time."""
_FEWEST = 4
_QUANTILE = float(stats.norm.ppf(0.975))
# Of few images the third moments are estimated badly; larger ones than these do not occur where they are known.
_MOST_SLOPE, _MOST_SKEWNESS = 2.0, 4.0


def kernel_distance(features_a: Tensor, features_b: Tensor) -> Estimate:
    """The unbiased estimate of the squared MMD with kernel (x y / d + 1)^3; no vector is paired with itself.

    features_a: (n, d); features_b: (m, d), in float64 throughout. Standard error and 95 % interval are for other images
    on both sides. The distribution of the estimate is skewed, and its error grows with its value, so the interval
    reaches further above the value than below it. Raises InputError for fewer than 4 vectors on a side.
    """
    fewest = min(len(features_a), len(features_b))
    if fewest < _FEWEST:
        raise InputError(f"{fewest} images are too few for a kernel distance; use at least {_FEWEST}", parameter="n")
    a, b = features_a.double(), features_b.double()
    n, m = len(a), len(b)
    within_a, within_b, across = _sums(a, a), _sums(b, b), _sums(a, b)
    total_a, total_b, total = within_a.rows.sum(), within_b.rows.sum(), across.rows.sum()

    def distance(sum_a: Tensor, sum_b: Tensor, sum_across: Tensor, n: int, m: int) -> Tensor:
        return sum_a / (n * (n - 1)) + sum_b / (m * (m - 1)) - 2 * sum_across / (n * m)

    value = float(distance(total_a, total_b, total, n, m))
    # Without image i, its pairs with all others are missing from the sums.
    without_a = distance(total_a - 2 * within_a.rows, total_b, total - across.rows, n - 1, m)  # (n,)
    without_b = distance(total_a, total_b - 2 * within_b.rows, total - across.columns, n, m - 1)  # (m,)
    # What each image adds to the estimate, with mean 0 on each side.
    alone_a, alone_b = ((len(w) - 1) * (w.mean() - w) for w in (without_a, without_b))
    jackknife = float(alone_a.square().mean() / (n - 1) + alone_b.square().mean() / (m - 1))
    # The variance has a part of single images and one of pairs, which the jackknife counts twice (Efron, Stein 1981).
    squares = across.squares - across.rows.square().sum() / m - across.columns.square().sum() / n + total**2 / (n * m)
    of_pairs = float(
        2 * within_a.pair_variance() / (n * (n - 1))
        + 2 * within_b.pair_variance() / (m * (m - 1))
        + 4 * squares / ((n - 1) * (m - 1)) / (n * m)
    )
    variance = max(jackknife - of_pairs, of_pairs, 0.0)
    cubes = float(alone_a.pow(3).mean() / n**2 + alone_b.pow(3).mean() / m**2)
    joint = float(
        _product(a, a, alone_a, alone_a, within_a) / (n**3 * (n - 1))
        + _product(b, b, alone_b, alone_b, within_b) / (m**3 * (m - 1))
        - 2 * _product(a, b, alone_a, alone_b) / (n * m) ** 2
    )
    return Estimate(
        value=value, standard_error=variance**0.5, interval_95=_interval(value, variance, cubes=cubes, joint=joint)
    )


def _interval(value: float, variance: float, *, cubes: float, joint: float) -> tuple[float, float]:
    """The 95 % interval of an estimate, from the first terms of the expansion of its t statistic (Hall 1992).

    cubes: the third moment of the single images' part; joint: the mean of the product of two images' parts and their
    pair's. The estimate's own third moment is cubes + 6 joint, its covariance with its estimated variance cubes + 4
    joint, and from both follow mean and skewness of t = (estimate - truth) / error. A monotone cubic of t has neither.
    """
    if variance <= 0:
        return value, value
    slope = _clipped((cubes + 4 * joint) / variance**1.5, _MOST_SLOPE)
    skewness = _clipped((-2 * cubes - 6 * joint) / variance**1.5, _MOST_SKEWNESS)
    bend = -skewness / 6

    def quantile(z: float) -> float:
        root = math.cbrt(1 + 3 * bend * z)
        return bend - slope / 2 + 3 * z / (root**2 + root + 1)  # the second term is (root - 1) / bend

    error = variance**0.5
    return value - error * quantile(_QUANTILE), value - error * quantile(-_QUANTILE)


def _clipped(value: float, most: float) -> float:
    return max(-most, min(most, value))


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Sums of a kernel matrix; of one of a set with itself without its diagonal."""

    rows: Tensor
    """(n,)."""
    columns: Tensor
    """(m,)."""
    squares: Tensor
    """Of all entries, ()."""

    def pair_variance(self) -> Tensor:
        """Of a set with itself: the variance of a pair's entry beyond what its two images explain, unbiased, ()."""
        n, total = len(self.rows), self.rows.sum()
        left = self.squares - 2 / (n - 2) * self.rows.square().sum() + total**2 / ((n - 1) * (n - 2))
        return left / (n * (n - 3))


def _tiles(a: Tensor, b: Tensor) -> Iterator[tuple[slice, slice, Tensor, bool]]:
    """The kernel between a (n, d) and b (m, d) in tiles: rows, columns, entries, and whether it stands for two.

    Where both are the same tensor, only one of two mirrored tiles is computed, and the diagonal is 0.
    """
    for i in range(0, len(a), _ROWS):
        for j in range(i if a is b else 0, len(b), _ROWS):
            rows, columns = slice(i, i + _ROWS), slice(j, j + _ROWS)
            tile = (a[rows] @ b[columns].T).div_(a.shape[1]).add_(1).pow_(3)
            if a is b and i == j:
                tile.fill_diagonal_(0)
            yield rows, columns, tile, a is b and i != j


def _sums(a: Tensor, b: Tensor) -> _Sums:
    rows, columns, squares = a.new_zeros(len(a)), b.new_zeros(len(b)), a.new_zeros(())
    for of_a, of_b, tile, mirrored in _tiles(a, b):
        rows[of_a] += tile.sum(1)
        columns[of_b] += tile.sum(0)
        squares += tile.square().sum() * (2 if mirrored else 1)
        if mirrored:
            rows[of_b] += tile.sum(0)
            columns[of_a] += tile.sum(1)
    return _Sums(rows=rows, columns=columns, squares=squares)


def _product(a: Tensor, b: Tensor, left: Tensor, right: Tensor, within: _Sums | None = None) -> Tensor:
    """left K right, (), of vectors with mean 0; within: of a set with itself, what its images explain is taken off."""
    total = left.new_zeros(())
    for rows, columns, tile, mirrored in _tiles(a, b):
        total += (left[rows] @ tile @ right[columns]) * (2 if mirrored else 1)
    if within is not None:
        n = len(left)
        level = within.rows.sum() / ((n - 1) * (n - 2))
        total += (left.square() * (2 * within.rows / (n - 2) - level)).sum()
    return total


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    return [kernel_distance(compared.kept_features(), reference.kept_features())]


MEASURE = Measure(
    name="kernel",
    help="KID over all pairs of images, with its standard error and 95 % interval",
    numbers=[Number(name="kernel_distance", title="Kernel", unit="squared MMD", decimals=4, better="lower")],
    function=_measure,
    draws=False,
    version=3,
)
