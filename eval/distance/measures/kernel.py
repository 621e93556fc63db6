"""The kernel distance (KID, Binkowski et al. 2018): squared MMD of features, unbiased at every n, with its error."""

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

_LARGEST_BLOCK, _FEWEST_BLOCKS = 1000, 10


def kernel_distance(features_a: Tensor, features_b: Tensor, *, seed: int) -> Estimate:
    """The mean of the unbiased squared MMD over disjoint blocks of a seeded shuffle, kernel (x y / d + 1)^3.

    features_a: (n, d); features_b: (m, d). Blocks hold up to 1000 vectors of each side, fewer where that would leave
    fewer than 10 blocks. They are disjoint, hence independent, so that the standard error is that of their mean; the
    usual 100 overlapping subsets would make it look smaller than it is. Raises InputError for fewer than 20 vectors.
    """
    fewest = min(len(features_a), len(features_b))
    block = min(_LARGEST_BLOCK, fewest // _FEWEST_BLOCKS)
    if block < 2:
        raise InputError(
            f"{fewest} images are too few for a kernel distance; use at least {2 * _FEWEST_BLOCKS}", parameter="n"
        )
    generator = torch.Generator().manual_seed(seed)
    a, b = (x[torch.randperm(len(x), generator=generator)].double() for x in (features_a, features_b))
    values = torch.stack(
        [
            squared_mmd(a[start : start + block], b[start : start + block])
            for start in range(0, fewest - block + 1, block)
        ]
    )
    return Estimate(value=float(values.mean()), standard_error=float(values.std() / len(values) ** 0.5))


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """The unbiased estimate of the squared MMD between a and b, both (m, d); no vector is paired with itself."""
    m, d = a.shape

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / d + 1) ** 3  # (m, m)

    within = sum(k.sum() - k.diagonal().sum() for k in (kernel(a, a), kernel(b, b)))
    return within / (m * (m - 1)) - 2 * kernel(a, b).mean()


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    return [kernel_distance(compared.kept_features(), reference.kept_features(), seed=seed)]


MEASURE = Measure(
    name="kernel",
    help="KID with its standard error",
    numbers=[Number(name="kernel_distance", title="Kernel", unit="squared MMD", decimals=4, better="lower")],
    function=_measure,
)
