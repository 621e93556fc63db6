"""Intervals that hold: g +- w sigma with w a quantile of |x - g| / sigma on images held out from the training.

Split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018), with quantiles for groups of pixels of similar
predicted sigma, so that coverage holds in each of them and not only over all pixels.
"""

import math

import torch
from torch import Tensor

from eval.calibration import CalibratedIntervals, CoverageOfImages, TenthCoverage

GROUPS = 100
# Pixel values of held-out images that are looked at.
MOST_NUMBERS = 50_000_000


def scores_needed(level: float) -> int:
    """The fewest scores whose largest is at least a new one with a probability of `level`: n / (n + 1) >= level."""
    n = math.floor(level / (1 - level))
    return n if math.ceil((n + 1) * level) <= n else n + 1


def promised(levels: tuple[float, ...], images: int) -> tuple[float, ...]:
    """The levels of which so many held-out images can promise anything; the others would take an infinite interval."""
    return tuple(level for level in levels if scores_needed(level) <= images)


def group_edges(sigma: Tensor, least: int) -> Tensor:
    """Values of sigma, (n,), between GROUPS groups of equal size; fewer where many are equal. Increasing, (G - 1,).

    least: numbers in the smallest group; neighbours are joined until all have as many.
    """
    ordered, kept, begin = sigma.sort().values, [], 0
    edges = ordered[torch.arange(1, GROUPS) * len(sigma) // GROUPS].unique()
    for edge, start in zip(edges.tolist(), torch.searchsorted(ordered, edges).tolist(), strict=True):
        if min(start - begin, len(ordered) - start) >= least:
            kept.append(edge)
            begin = start
    return sigma.new_tensor(kept)


def conformal_half_widths(score: Tensor, group: Tensor, groups: int, levels: tuple[float, ...]) -> Tensor:
    """The smallest w such that a new score is at most w with a probability of at least each level, (L, G).

    score: |x - g| / sigma, (n,); group: (n,) int64 in 0 to groups - 1, each with `scores_needed` by the highest level.
    """
    result = torch.empty(len(levels), groups, dtype=torch.float64)
    for g in range(groups):
        own = score[group == g].sort().values
        for row, level in enumerate(levels):
            rank = math.ceil((len(own) + 1) * level)  # of n + 1 exchangeable scores
            result[row, g] = own[rank - 1]
    return result


def calibrated_intervals(
    held_out: tuple[Tensor, Tensor], measured: tuple[Tensor, Tensor], levels: tuple[float, ...], split: str
) -> CalibratedIntervals:
    """Intervals from held-out images and how many pixels of other images they hold.

    held_out, measured: errors x - g and variances, (N, d) each. split: of the held-out images. Of `levels` only those
    are calibrated that so many held-out images can promise.
    """
    known, new = _Pixels(*held_out), _Pixels(*measured)
    levels = promised(levels, len(known.sigma))
    edges = group_edges(known.sigma.flatten(), scores_needed(max(levels)))
    group = torch.bucketize(known.sigma, edges, right=True)
    widths = conformal_half_widths(known.score.flatten(), group.flatten(), len(edges) + 1, levels)  # (L, G)
    inside = new.inside(edges, widths)
    by_image = torch.stack([row.double().mean(1) for row in inside])  # (L, N)
    N = len(new.sigma)
    spread = by_image.std(1) / math.sqrt(N) if N > 1 else None
    return CalibratedIntervals(
        split=split,
        images=len(known.sigma),
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
        tenths=_tenths(new.sigma, inside, (known.sigma, known.inside(edges, widths)), levels),
    )


class _Pixels:
    """Of images: predicted deviations, and errors in units of them."""

    def __init__(self, error: Tensor, variance: Tensor) -> None:
        self.sigma = variance.sqrt()  # (N, d)
        self.score = error.abs() / self.sigma

    def inside(self, edges: Tensor, widths: Tensor) -> Tensor:
        """Whether a pixel is in its interval, (L, N, d) bool. widths: (L, G), of the groups by `edges`."""
        group = torch.bucketize(self.sigma, edges, right=True)
        return torch.stack([self.score <= row[group] for row in widths.to(self.score)])


def _tenths(
    sigma: Tensor, inside: Tensor, held_out: tuple[Tensor, Tensor], levels: tuple[float, ...]
) -> tuple[TenthCoverage, ...]:
    """sigma: (N, d), inside: (L, N, d), and the same of the held-out images."""
    flat = sigma.flatten()
    wanted = 1 if flat.min() == flat.max() else 10
    parts = [part for part in flat.argsort(stable=True).tensor_split(wanted) if len(part)]
    count = len(parts)
    tenth = torch.empty_like(flat, dtype=torch.int64)
    for t, part in enumerate(parts):
        tenth[part] = t
    starts = torch.stack([flat[part[0]] for part in parts[1:]]) if count > 1 else flat.new_empty(0)
    value, error = coverage_of_groups(inside, tenth.view_as(sigma), count)
    _, of_calibration = coverage_of_groups(held_out[1], torch.bucketize(held_out[0], starts, right=True), count)
    # Both sets of images could have been others.
    error = torch.hypot(error, of_calibration)
    return tuple(
        TenthCoverage(
            sigma=flat[part].mean().item(),
            coverage=tuple(
                CoverageOfImages(
                    level=level,
                    value=value[row, t].item(),
                    standard_error=error[row, t].item() if error[row, t].isfinite() else None,
                )
                for row, level in enumerate(levels)
            ),
        )
        for t, part in enumerate(parts)
    )


def coverage_of_groups(inside: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The part of each group's pixels that is inside, and its standard error, (L, G) each, float64.

    The pixels of an image go together, so the error is that of a ratio of sums over images; it is not finite for a
    single image. inside: (L, N, d) bool; group: (N, d) int64, in 0 to groups - 1.
    """
    N = len(group)
    count = torch.zeros(N, groups, dtype=torch.float64).scatter_add_(1, group, torch.ones(group.shape).double())
    held = torch.stack([torch.zeros_like(count).scatter_add_(1, group, row.double()) for row in inside])  # (L, N, G)
    total = count.sum(0).clamp_min(1)  # (G,)
    value = held.sum(1) / total
    rest = held - value[:, None] * count
    return value, (rest.square().sum(1) * (N / (N - 1) if N > 1 else math.nan)).sqrt() / total
