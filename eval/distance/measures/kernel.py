"""The kernel distance (KID, Binkowski et al. 2018): squared MMD of features over all pairs, unbiased, with its error.

Subsets, as other programs use, leave most pairs out: 100 of 1000 images add their choice to the noise of the images.
"""

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

_ROWS = 1024
"""Rows of a kernel matrix held at a time."""


def kernel_distance(features_a: Tensor, features_b: Tensor) -> Estimate:
    """The unbiased estimate of the squared MMD with kernel (x y / d + 1)^3; no vector is paired with itself.

    features_a: (n, d); features_b: (m, d), in float64 throughout. The standard error is the jackknife's over the images
    of both sides, exact for each image left out. Where both sides have the same distribution it is too large, by up to
    a factor of 2^(1/2); of 100 images that are far from the others it is a little too small: two errors then hold the
    truth in 89 % of trials, from 400 on in 95 %. Raises InputError for fewer than 3 vectors on a side.
    """
    fewest = min(len(features_a), len(features_b))
    if fewest < 3:
        raise InputError(f"{fewest} images are too few for a kernel distance; use at least 3", parameter="n")
    a, b = features_a.double(), features_b.double()
    n, m = len(a), len(b)
    within_a, _ = _sums(a, a)
    within_b, _ = _sums(b, b)
    across_a, across_b = _sums(a, b)
    total_a, total_b, across = within_a.sum(), within_b.sum(), across_a.sum()

    def distance(sum_a: Tensor, sum_b: Tensor, sum_across: Tensor, n: int, m: int) -> Tensor:
        return sum_a / (n * (n - 1)) + sum_b / (m * (m - 1)) - 2 * sum_across / (n * m)

    # Without image i, its pairs with all others are missing from the sums.
    without_a = distance(total_a - 2 * within_a, total_b, across - across_a, n - 1, m)  # (n,)
    without_b = distance(total_a, total_b - 2 * within_b, across - across_b, n, m - 1)  # (m,)
    variance = sum((k - 1) * without.var(correction=0) for k, without in ((n, without_a), (m, without_b)))
    return Estimate(
        value=float(distance(total_a, total_b, across, n, m)),
        standard_error=float(torch.as_tensor(variance).clamp_min(0).sqrt()),
    )


def _sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the kernel between a (n, d) and b (m, d): over b for each of a (n,), and over a for each of b (m,).

    Where both are the same tensor, pairs of a vector with itself are left out.
    """
    rows, columns = a.new_zeros(len(a)), a.new_zeros(len(b))
    for start in range(0, len(a), _ROWS):
        part = a[start : start + _ROWS]
        kernel = (part @ b.T).div_(a.shape[1]).add_(1).pow_(3)  # (rows, m)
        if a is b:
            kernel[torch.arange(len(part)), torch.arange(start, start + len(part))] = 0
        rows[start : start + len(part)] = kernel.sum(1)
        columns += kernel.sum(0)
    return rows, columns


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    return [kernel_distance(compared.kept_features(), reference.kept_features())]


MEASURE = Measure(
    name="kernel",
    help="KID over all pairs of images, with its standard error",
    numbers=[Number(name="kernel_distance", title="Kernel", unit="squared MMD", decimals=4, better="lower")],
    function=_measure,
    version=2,
)
