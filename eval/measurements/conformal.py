"""Intervals that hold: g +- w sigma with w a quantile of |x - g| / sigma on images held out from the training.

Split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018), with quantiles for groups of pixels of similar
predicted sigma, so that coverage holds in each of them and not only over all pixels.
"""

import math

import torch
from torch import Tensor

from eval.calibration import CalibratedIntervals, Coverage, CoverageOfImages, TenthCoverage

GROUPS = 100
# Pixel values of held-out images that are looked at.
MOST_NUMBERS = 50_000_000


def group_edges(sigma: Tensor) -> Tensor:
    """Values of sigma, (n,), between GROUPS groups of equal size; fewer where many are equal. Increasing, (G - 1,)."""
    places = torch.arange(1, GROUPS) * len(sigma) // GROUPS
    edges = sigma.sort().values[places].unique()
    return edges[edges > sigma.min()]


def conformal_half_widths(score: Tensor, group: Tensor, groups: int, levels: tuple[float, ...]) -> Tensor:
    """The smallest w such that a new score is at most w with a probability of at least each level, (L, G).

    score: |x - g| / sigma, (n,); group: (n,) int64 in 0 to groups - 1, none of them empty.
    """
    result = torch.empty(len(levels), groups, dtype=torch.float64)
    for g in range(groups):
        own = score[group == g].sort().values
        for row, level in enumerate(levels):
            rank = min(len(own), math.ceil((len(own) + 1) * level))  # of n + 1 exchangeable scores
            result[row, g] = own[rank - 1]
    return result


def calibrated_intervals(
    held_out: tuple[Tensor, Tensor], measured: tuple[Tensor, Tensor], levels: tuple[float, ...], split: str
) -> CalibratedIntervals:
    """Intervals from held-out images and how many pixels of other images they hold.

    held_out, measured: errors x - g and variances, (N, d) each. split: of the held-out images.
    """
    error, variance = held_out
    sigma = variance.sqrt().flatten()
    edges = group_edges(sigma)
    group = torch.bucketize(sigma, edges, right=True)
    widths = conformal_half_widths(error.abs().flatten() / sigma, group, len(edges) + 1, levels)  # (L, G)
    error, variance = measured
    sigma = variance.sqrt()
    allowed = widths.to(sigma)[:, torch.bucketize(sigma, edges, right=True)]  # (L, N, d)
    inside = (error.abs() / sigma <= allowed).double()
    by_image = inside.mean(2)  # (L, N)
    spread = by_image.std(1) / math.sqrt(len(error)) if len(error) > 1 else None
    return CalibratedIntervals(
        split=split,
        images=len(held_out[0]),
        edges=tuple(edges.tolist()),
        half_widths=tuple(tuple(row.tolist()) for row in widths),
        coverage=tuple(
            CoverageOfImages(
                level=level,
                value=by_image[row].mean().item(),
                standard_error=None if spread is None else spread[row].item(),
            )
            for row, level in enumerate(levels)
        ),
        tenths=_tenths(sigma.flatten(), inside.flatten(1), levels),
    )


def _tenths(sigma: Tensor, inside: Tensor, levels: tuple[float, ...]) -> tuple[TenthCoverage, ...]:
    """sigma: (n,); inside: (L, n)."""
    order = sigma.argsort(stable=True)
    parts = order.tensor_split(1 if sigma.min() == sigma.max() else 10)
    return tuple(
        TenthCoverage(
            sigma=sigma[part].mean().item(),
            coverage=tuple(
                Coverage(level=level, value=inside[row, part].mean().item()) for row, level in enumerate(levels)
            ),
        )
        for part in parts
    )
