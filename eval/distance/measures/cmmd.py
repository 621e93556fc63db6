"""The squared MMD with a Gaussian kernel (Jayasumana et al. 2024), called CMMD where the features are CLIP's.

Their definition: vectors scaled to unit length, kernel exp(-|x - y|^2 / (2 * 10^2)), the mean over all pairs, also of a
vector with itself, times 1000. It assumes no Gaussian distribution of the features.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

_WIDTH, _SCALE = 10.0, 1000.0
_ROWS = 1024
"""Rows of a kernel matrix held at a time."""


def gaussian_mmd(features_a: Tensor, features_b: Tensor) -> float:
    """features_a: (n, d); features_b: (m, d); in float64. At least 0, and 0 for equal sets."""
    a, b = (normalize(features.double(), dim=1) for features in (features_a, features_b))
    return _SCALE * float((_mean(a, a) + _mean(b, b) - 2 * _mean(a, b)).clamp_min(0))


def _mean(a: Tensor, b: Tensor) -> Tensor:
    """The mean of exp(-|x - y|^2 / (2 w^2)) - 1 over all pairs: without the 1, which cancels, no digits are lost."""
    total = a.new_zeros(())
    lengths_a, lengths_b = a.square().sum(1), b.square().sum(1)
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        square = (lengths_a[rows, None] + lengths_b - 2 * a[rows] @ b.T).clamp_min_(0)  # (rows, m)
        total += torch.expm1(square.div_(-2 * _WIDTH**2)).sum()
    return total / (len(a) * len(b))


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    return [Estimate(value=gaussian_mmd(compared.kept_features(), reference.kept_features()))]


MEASURE = Measure(
    name="cmmd",
    help="squared MMD with a Gaussian kernel of features of unit length, called CMMD for CLIP's",
    numbers=[
        Number(name="gaussian_mmd", title="Gaussian MMD", unit="1000 times squared MMD", decimals=3, better="lower")
    ],
    function=_measure,
    draws=False,
)
