"""Precision, recall, density and coverage: do samples look real, and is every kind of real image among them?

Precision and recall after Kynkaanniemi et al. (2019), density and coverage after Naeem et al. (2020): the manifold of a
set is the union of balls around its feature vectors, each reaching to its k-th nearest neighbour in the same set.

Where sets share images, distances are equal to radii. For precision and recall such a point is inside. For density and
coverage it is outside, as in their authors' program: a set compared with itself has a density of 1. But a ball always
holds its own centre, so that images which occur more than k times are covered too. Distances that differ by rounding
are taken to be equal.
"""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics
from trainer.full_precision import full_precision

# Rows of a distance matrix held at a time.
_CHUNK = 1024
# Features of one image in two batches differ by about this much of their length in float32.
_ROUNDING = 1e-6
_K_PRECISION, _K_DENSITY = 3, 5


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How far two sets overlap: shares of images, except density."""

    precision: float
    """Share of samples within the real manifold (k = 3), 0 to 1."""
    recall: float
    """Share of real images within the samples' manifold (k = 3), 0 to 1."""
    density: float
    """Number of real balls (k = 5) around a sample, averaged over samples, over 5; about 1 where samples are real."""
    coverage: float
    """Share of real images whose ball (k = 5) holds at least one sample, 0 to 1."""


@full_precision()
def overlap(samples: Tensor, real: Tensor) -> Overlap:
    """samples: (n, d) features; real: (m, d). Raises InputError for six images or fewer on a side."""
    fewest = min(len(samples), len(real))
    if fewest <= _K_DENSITY + 1:
        raise InputError(
            f"{fewest} images are too few for precision and recall; use at least {_K_DENSITY + 2}", parameter="n"
        )
    samples, real = samples.double(), real.double()
    rounding = _ROUNDING * float(real.square().sum(1).mean().sqrt())
    centre = real.mean(0)  # distances by products lose fewer digits around the centre
    samples, real = samples - centre, real - centre
    real_radii = _radii(real, (_K_PRECISION, _K_DENSITY))  # (m, 2)
    sample_radii = _radii(samples, (_K_PRECISION,))  # (n, 1)
    precise, dense = torch.zeros(len(samples)), torch.zeros(len(samples))
    recalled = torch.zeros(len(real), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)
    for start in range(0, len(samples), _CHUNK):
        rows = slice(start, start + _CHUNK)
        distance = _distances(samples[rows], real)  # (chunk, m)
        precise[rows] = (distance <= real_radii[:, 0] + rounding).any(1).float()
        inside = (distance < real_radii[:, 1] - rounding) | (distance <= rounding)
        dense[rows] = inside.float().sum(1)
        covered |= inside.any(0)
        recalled |= (distance <= sample_radii[rows] + rounding).any(0)
    return Overlap(
        precision=float(precise.mean()),
        recall=float(recalled.float().mean()),
        density=float(dense.mean()) / _K_DENSITY,
        coverage=float(covered.float().mean()),
    )


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")


def _radii(x: Tensor, ks: tuple[int, ...]) -> Tensor:
    """Distance of each vector of x, (n, d), to its k-th nearest other one, (n, len(ks))."""
    radii = x.new_empty(len(x), len(ks))
    for start in range(0, len(x), _CHUNK):
        distance = _distances(x[start : start + _CHUNK], x)  # (chunk, n)
        # A vector is not its own neighbour, and its computed distance to itself need not be exactly 0.
        distance[torch.arange(len(distance)), torch.arange(start, start + len(distance))] = torch.inf
        nearest = distance.topk(max(ks), dim=1, largest=False).values  # ascending
        radii[start : start + _CHUNK] = nearest[:, [k - 1 for k in ks]]
    return radii


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    return [Estimate(value=value) for value in astuple(overlap(compared.kept_features(), reference.kept_features()))]


MEASURE = Measure(
    name="neighbours",
    help="precision, recall, density, coverage",
    numbers=[
        Number(name=name, title=name.capitalize(), unit="of 1", decimals=3, better="higher")
        for name in ("precision", "recall", "density", "coverage")
    ],
    function=_measure,
    draws=False,
    version=2,
)
