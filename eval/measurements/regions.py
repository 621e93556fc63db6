"""Whether the uncertainty of a mean over many pixels holds: with independent pixels it is far too small.

The mean over n pixels has the variance 1^T S C S 1 / n^2; for independent pixels C = I, and it falls as 1 / n.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from eval.calibration import Coverage, RegionCoverage
from eval.measurements.conformal import conformal_half_widths, promised
from eval.measurements.quantiles import half_widths
from eval.residuals.noise import CorrelatedNoise
from trainer.networks.model import Likelihood

_SIDES = (2, 4, 7, 14, 28)
WHOLE = 0
"""The side that stands for a whole image."""


def region_sides(height: int, width: int) -> tuple[int, ...]:
    """The sides of the regions that are measured in such images, the whole image last."""
    return (*(side for side in _SIDES if 2 * side <= min(height, width)), WHOLE)


def region_means(values: Tensor, side: int) -> Tensor:
    """Means over the squares that tile images (B, C, H, W) from the top left, and over channels: (B, regions)."""
    if side == WHOLE:
        return values.flatten(1).mean(1, keepdim=True)
    return F.avg_pool2d(values, side).mean(1).flatten(1)


def independent_variance(output: Likelihood, side: int) -> Tensor:
    """Variances of the region means of x given z with independent pixels, (B, regions)."""
    variance = output.variance.double().expand_as(output.mean)
    pixels = variance[0].numel() if side == WHOLE else variance.shape[1] * side**2
    return region_means(variance, side) / pixels


def correlated_variances(noise: CorrelatedNoise, z: Tensor, output: Likelihood, sides: tuple[int, ...]) -> list[Tensor]:
    """The same with correlated noise, of each of `sides`: (B, regions) each."""
    std = output.variance.double().sqrt().expand_as(output.mean)  # (B, C, H, W)
    of_images: dict[int, list[Tensor]] = {}
    for rows, k in noise.by_component(z):
        covariance = noise.covariances[k]
        L, D = covariance.factor, covariance.diagonal.view(std.shape[1:])
        for row in rows.tolist():
            # The rows of S L as r images: their region means are 1^T S L / n.
            scaled = (std[row].flatten()[:, None] * L).mT.reshape(-1, *std.shape[1:])  # (r, C, H, W)
            own = std[row].square() * D
            of_images[row] = []
            for side in sides:
                pixels = own.numel() if side == WHOLE else own.shape[0] * side**2
                of_images[row].append(
                    region_means(scaled, side).square().sum(0) + region_means(own[None], side)[0] / pixels
                )
    return [torch.stack([of_images[row][place] for row in range(len(std))]) for place in range(len(sides))]


def region_coverage(
    side: int, scores: tuple[Tensor, Tensor], levels: tuple[float, ...], held_out: Tensor | None = None
) -> RegionCoverage:
    """Coverage of the central intervals.

    scores: |mean error| / deviation for independent and correlated pixels, (N, regions) float64 each; held_out: the
    latter of other images, whose quantiles the third kind of interval is made of, at the levels that they can promise.
    """

    def inside(score: Tensor, levels: tuple[float, ...], widths: Tensor) -> tuple[Coverage, ...]:
        return tuple(
            Coverage(level=level, value=(score <= width).double().mean().item())
            for level, width in zip(levels, widths, strict=True)
        )

    independent, correlated = scores
    calibrated: tuple[Coverage, ...] = ()
    if held_out is not None:
        one_group = torch.zeros(held_out.numel(), dtype=torch.int64)
        of_them = promised(levels, len(held_out))
        widths = conformal_half_widths(held_out.flatten(), one_group, 1, of_them)[:, 0]
        calibrated = inside(correlated, of_them, widths)
    return RegionCoverage(
        side=side,
        regions=independent.shape[1],
        independent=inside(independent, levels, half_widths(levels)),
        correlated=inside(correlated, levels, half_widths(levels)),
        calibrated=calibrated,
    )
