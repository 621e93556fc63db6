"""How well predicted variances sigma^2 say how large errors are, and what that means in one sentence.

The functions take squared errors e^2 = (x - g)^2 and predicted variances of many pixels, both (n,) float64 unless said
otherwise, and treat them as one set of n predictions.
"""

import math
from statistics import NormalDist

import torch
from torch import Tensor

from eval.calibration import Coverage, CoverageOfImages, Reliability, Sparsification, StandardisedResiduals, UpperHalf
from eval.measurements.quantiles import half_widths
from eval.protocol import UncertaintyProtocol
from eval.results import UncertaintyResult
from trainer.objectives.families import log_density
from trainer.objectives.gaussian import LOG_2PI

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)

RESIDUAL_EDGES = tuple(-5 + 0.25 * i for i in range(41))
"""Edges of the histogram of standardised residuals, in standard deviations."""


def coverage(
    square_error: Tensor, variance: Tensor, levels: tuple[float, ...] = LEVELS, *, family: str = "gaussian"
) -> Tensor:
    """Part of each image's pixels inside the central interval of each level, of the family with mean g and sigma^2.

    square_error, variance: (N, d). Returns (N, number of levels). A calibrated variance gives the levels themselves on
    average; more means too wide, less too narrow.
    """
    residual = (square_error / variance).sqrt()
    return torch.stack([(residual <= width).double().mean(1) for width in half_widths(levels, family)], dim=1)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 0, equal values sharing the mean of theirs, float64."""
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts.double() + 1) / 2)[group]


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation: does a larger predicted variance go with a larger error, on whatever scale?"""
    return correlation(average_ranks(a), average_ranks(b))


def reliability(square_error: Tensor, variance: Tensor, groups: int = 20) -> Reliability:
    """Groups pixels by predicted variance and compares it with the error that was made there."""
    order = variance.argsort(stable=True)
    return Reliability(
        variance=tuple(float(part.mean()) for part in variance[order].tensor_split(groups)),
        square_error=tuple(float(part.mean()) for part in square_error[order].tensor_split(groups)),
    )


def sparsification(square_error: Tensor, variance: Tensor, points: int = 20) -> Sparsification:
    """The sparsification curve of `variance`, that of the best order, and the area between them."""
    left_out = torch.arange(points, dtype=torch.float64) / points

    def kept_error(score: Tensor) -> Tensor:
        # The order of pixels of equal score is arbitrary, so each has the mean error of its group.
        _, group, counts = score.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, group, square_error)
        rising = torch.repeat_interleave(sums / counts, counts)  # smallest score first, (n,)
        kept = len(score) - (left_out * len(score)).long()
        return rising.cumsum(0)[kept - 1] / kept / square_error.mean().clamp_min(1e-300)

    by_variance, by_error = kept_error(variance), kept_error(square_error)
    return Sparsification(
        left_out=tuple(left_out.tolist()),
        by_variance=tuple(by_variance.tolist()),
        by_error=tuple(by_error.tolist()),
        area=float(torch.trapezoid(by_variance - by_error, left_out)),
        area_of_chance=float(torch.trapezoid(1 - by_error, left_out)),
    )


WIDTH_TOLERANCE = 1.15
"""Factor by which an interval may be too wide or too narrow and still counts as calibrated."""


def width_factors(result: UncertaintyResult) -> list[float]:
    """By how much the interval of each level is too wide, in the order of the levels: 1 where it is calibrated.

    An interval that holds a part h of the pixels where it promises p is as wide as a Gaussian's interval of h: the
    factor is the ratio of their widths, so that 98.7 % and 99.1 % of 99 % are both close to 1.
    """
    normal = NormalDist()
    held = (min(point.value, 1 - 1e-9) for point in result.coverage)
    levels = (point.level for point in result.coverage)
    return [normal.inv_cdf((1 + h) / 2) / normal.inv_cdf((1 + p) / 2) for h, p in zip(held, levels, strict=True)]


def calibration_verdict(result: UncertaintyResult) -> str:
    """One sentence on what the calibration means."""
    if result.protocol.variance == "one":
        return "One variance serves all pixels, so it can be right on average but cannot tell where errors are."
    held = {point.level: point.value for point in result.coverage}
    factors = width_factors(result)
    wide, narrow = max(factors), min(factors)
    too_wide, too_narrow = wide > WIDTH_TOLERANCE, narrow < 1 / WIDTH_TOLERANCE
    if not (too_wide or too_narrow):
        shape = f"as promised, to a factor of {WIDTH_TOLERANCE:g} of their width; sigma is a standard deviation"
    elif too_wide and too_narrow:
        small, large = ("smaller", "larger") if factors[0] > factors[-1] else ("larger", "smaller")
        shape = f"most errors are {small}, and the largest ones {large}, than a Gaussian of this width would have"
    elif too_wide:
        shape = f"the intervals are too wide, by a factor of up to {wide:.2f}"
    else:
        shape = f"the intervals are too narrow, by a factor of up to {1 / max(narrow, 1e-9):.2f}"
    order = result.sparsification
    part = 1 - order.area / order.area_of_chance if order.area_of_chance > 0 else 0.0
    gain = result.log_likelihood_gain
    return (
        f"The 50%, 90% and 99% intervals hold {held[0.5]:.1%}, {held[0.9]:.1%} and {held[0.99]:.1%} of the pixels: "
        f"{shape}. As an order of which pixels are wrong the variance achieves {part:.0%} of what is possible (0% is "
        f"chance). Against the best single variance it {'adds' if gain > 0 else 'costs'} {abs(gain):.0f} nats an image."
    )


def calibration(error: Tensor, variance: Tensor, protocol: UncertaintyProtocol) -> UncertaintyResult:
    """Calibration and sharpness of variances predicted for N images of d pixels.

    error: x - g(z), (N, d) float64; variance: (N, d) float64, above 0.
    """
    square_error = error.square()
    family = protocol.family
    inside = coverage(square_error, variance, family=family)  # (N, L)
    residual = error / variance.sqrt()
    flat_error, flat_variance = square_error.flatten(), variance.flatten()
    return UncertaintyResult(
        protocol=protocol,
        coverage=tuple(
            CoverageOfImages(
                level=level,
                value=inside[:, i].mean().item(),
                standard_error=(inside[:, i].std() / math.sqrt(len(inside))).item() if len(inside) > 1 else None,
            )
            for i, level in enumerate(LEVELS)
        ),
        upper_half=_upper_half(flat_error, flat_variance, family),
        residuals=StandardisedResiduals(
            mean=residual.mean().item(),
            standard_deviation=residual.std(correction=0).item(),
            edges=RESIDUAL_EDGES,
            density=tuple(histogram(residual).tolist()),
            beyond=(residual.abs() > RESIDUAL_EDGES[-1]).double().mean().item(),
        ),
        correlation_of_variance_and_square_error=correlation(flat_error, flat_variance),
        rank_correlation_over_pixels=rank_correlation(flat_error, flat_variance),
        rank_correlation_over_images=rank_correlation(square_error.mean(1), variance.mean(1)),
        reliability=reliability(flat_error, flat_variance),
        sparsification=sparsification(flat_error, flat_variance),
        log_likelihood_gain=log_likelihood_gain(square_error, variance, family),
        mean_square_error=flat_error.mean().item(),
        mean_variance=flat_variance.mean().item(),
    )


def _upper_half(square_error: Tensor, variance: Tensor, family: str) -> UpperHalf | None:
    """Calibration of those pixels whose variance lies above the median; None where all variances are equal.

    Backgrounds that are always black are easy, and many enough to hide how the intervals do where there is something
    to predict. square_error, variance: (n,).
    """
    above = variance > variance.median()
    if not above.any():
        return None
    inside = coverage(square_error[above][None], variance[above][None], family=family)[0]
    return UpperHalf(
        coverage=tuple(Coverage(level=level, value=inside[i].item()) for i, level in enumerate(LEVELS)),
        mean_square_error=square_error[above].mean().item(),
        variance=variance[above].mean().item(),
    )


def histogram(residual: Tensor) -> Tensor:
    """Density of standardised residuals over RESIDUAL_EDGES, (40,); residuals beyond the edges are left out."""
    edges = torch.tensor(RESIDUAL_EDGES, dtype=torch.float64)
    counts, _ = torch.histogram(residual.flatten(), edges)
    return counts / residual.numel() / edges.diff()


def log_likelihood_gain(square_error: Tensor, variance: Tensor, family: str = "gaussian") -> float:
    """Nats per image by which these variances beat a Gaussian of the best single one (equation 9) on the same errors.

    square_error, variance: (N, d). Below 0 where one number for all pixels would have been better.
    """
    best = square_error.mean()
    per_pixel = log_density((square_error / variance).sqrt(), family) - 0.5 * variance.log()
    of_best = -0.5 * (LOG_2PI + 1 + best.log()) * square_error.shape[1]
    return float(per_pixel.sum(1).mean() - of_best)
