"""Whether a predicted variance can be trusted: does it say how far the prediction is off?

The functions take squared errors e^2 = (x - g)^2 and predicted variances sigma^2 of many pixels, both (n,) float64
unless said otherwise, and treat them as one set of n predictions.
"""

import torch
from torch import Tensor

from eval.results import Reliability, Sparsification, UncertaintyResult

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)


def coverage(square_error: Tensor, variance: Tensor, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """Part of each image's pixels inside the central interval of each level of N(g, sigma^2).

    square_error, variance: (N, d). Returns (N, number of levels). A calibrated variance gives the levels themselves on
    average; more means too wide, less too narrow.
    """
    residual = (square_error / variance).sqrt()
    half_widths = torch.special.ndtri((1 + torch.tensor(levels, dtype=torch.float64)) / 2)  # in standard deviations
    return torch.stack([(residual <= width).double().mean(1) for width in half_widths], dim=1)


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


def calibration_verdict(result: UncertaintyResult) -> str:
    """One sentence on what the calibration means."""
    if result.protocol.variance == "one":
        return "One variance serves all pixels, so it can be right on average but cannot tell where errors are."
    held = {point.level: point.value for point in result.coverage}
    fits = all(abs(value - level) <= 0.03 for level, value in held.items())
    if fits:
        shape = "as many as promised, so sigma may be read as a standard deviation"
    elif held[0.5] > 0.5 and held[0.99] < 0.99:
        shape = "errors are mostly smaller and sometimes much larger than a Gaussian of this width would have"
    else:
        shape = "the intervals are too wide" if held[0.9] > 0.9 else "the intervals are too narrow"
    order = result.sparsification
    part = 1 - order.area / order.area_of_chance if order.area_of_chance > 0 else 0.0
    gain = result.log_likelihood_gain
    return (
        f"The 50%, 90% and 99% intervals hold {held[0.5]:.0%}, {held[0.9]:.0%} and {held[0.99]:.0%} of the pixels: "
        f"{shape}. As an order of which pixels are wrong the variance achieves {part:.0%} of what is possible (0% is "
        f"chance). Against the best single variance it {'adds' if gain > 0 else 'costs'} {abs(gain):.0f} nats an image."
    )
