"""The kernel distance (KID, Binkowski et al. 2018): squared MMD of features, unbiased at every n, with its error."""

from typing import NamedTuple

import torch
from torch import Tensor

from data_shards.io.errors import InputError

_LARGEST_BLOCK, _FEWEST_BLOCKS = 1000, 10


class Estimate(NamedTuple):
    """A value and the standard error of it."""

    value: float
    standard_error: float


def kernel_distance(features_a: Tensor, features_b: Tensor, *, seed: int) -> Estimate:
    """The mean of the unbiased squared MMD over disjoint blocks of a seeded shuffle, kernel (x y / d + 1)^3.

    features_a: (n, d); features_b: (m, d). Blocks hold up to 1000 vectors of each side, fewer where that would leave
    fewer than 10 blocks. They are disjoint, hence independent, so that the standard error is that of their mean; the
    usual 100 overlapping subsets would make it look smaller than it is. Raises InputError for fewer than 20 vectors.
    """
    fewest = min(len(features_a), len(features_b))
    block = min(_LARGEST_BLOCK, fewest // _FEWEST_BLOCKS)
    if block < 2:
        raise InputError(f"n: {fewest} images are too few for a kernel distance; use at least {2 * _FEWEST_BLOCKS}")
    generator = torch.Generator().manual_seed(seed)
    a, b = (x[torch.randperm(len(x), generator=generator)].double() for x in (features_a, features_b))
    values = torch.stack(
        [
            squared_mmd(a[start : start + block], b[start : start + block])
            for start in range(0, fewest - block + 1, block)
        ]
    )
    return Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5))


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """The unbiased estimate of the squared MMD between a and b, both (m, d); no vector is paired with itself."""
    m, d = a.shape

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / d + 1) ** 3  # (m, m)

    within = sum(k.sum() - k.diagonal().sum() for k in (kernel(a, a), kernel(b, b)))
    return within / (m * (m - 1)) - 2 * kernel(a, b).mean()
