"""The numbers that say whether a run's variance sigma_k(z)^2 may be trusted."""

import math
from typing import Any

import torch
from torch import Tensor

from eval.uncertainty.calibration import LEVELS, correlation, coverage, rank_correlation, reliability, sparsification

RESIDUAL_EDGES = tuple(-5 + 0.25 * i for i in range(41))
"""Edges of the histogram of standardised residuals, in standard deviations."""


def uncertainty_values(error: Tensor, variance: Tensor) -> dict[str, Any]:
    """Calibration and sharpness of variances predicted for N images of d pixels.

    error: x - g(z), (N, d) float64; variance: (N, d) float64, above 0. Returns what JSON can hold.
    """
    square_error = error.square()
    inside = coverage(square_error, variance)  # (N, L)
    residual = error / variance.sqrt()
    flat_error, flat_variance = square_error.flatten(), variance.flatten()
    groups = reliability(flat_error, flat_variance)
    order = sparsification(flat_error, flat_variance)
    return {
        "coverage": [
            {
                "level": level,
                "value": inside[:, i].mean().item(),
                "standard_error": (inside[:, i].std() / math.sqrt(len(inside))).item() if len(inside) > 1 else None,
            }
            for i, level in enumerate(LEVELS)
        ],
        "upper_half": upper_half(flat_error, flat_variance),
        "residuals": {
            "mean": residual.mean().item(),
            "standard_deviation": residual.std(correction=0).item(),
            "edges": RESIDUAL_EDGES,
            "density": histogram(residual).tolist(),
            "beyond": (residual.abs() > RESIDUAL_EDGES[-1]).double().mean().item(),
        },
        "correlation_of_variance_and_square_error": correlation(flat_error, flat_variance),
        "rank_correlation_over_pixels": rank_correlation(flat_error, flat_variance),
        "rank_correlation_over_images": rank_correlation(square_error.mean(1), variance.mean(1)),
        "reliability": {"variance": groups.variance.tolist(), "square_error": groups.square_error.tolist()},
        "sparsification": {
            "left_out": order.left_out.tolist(),
            "by_variance": order.by_variance.tolist(),
            "by_error": order.by_error.tolist(),
            "area": order.area,
            "area_of_chance": order.area_of_chance,
        },
        "log_likelihood_gain": log_likelihood_gain(square_error, variance),
        "mean_square_error": flat_error.mean().item(),
        "mean_variance": flat_variance.mean().item(),
    }


def upper_half(square_error: Tensor, variance: Tensor) -> dict[str, Any] | None:
    """Calibration of those pixels whose variance lies above the median; None where all variances are equal.

    Backgrounds that are always black are easy, and many enough to hide how the intervals fare where there is something
    to predict. square_error, variance: (n,).
    """
    above = variance > variance.median()
    if not above.any():
        return None
    inside = coverage(square_error[above][None], variance[above][None])[0]
    return {
        "coverage": [{"level": level, "value": inside[i].item()} for i, level in enumerate(LEVELS)],
        "mean_square_error": square_error[above].mean().item(),
        "variance": variance[above].mean().item(),
    }


def histogram(residual: Tensor) -> Tensor:
    """Density of standardised residuals over RESIDUAL_EDGES, (40,); what lies beyond the edges is not in it."""
    edges = torch.tensor(RESIDUAL_EDGES, dtype=torch.float64)
    counts, _ = torch.histogram(residual.flatten(), edges)
    return counts / residual.numel() / edges.diff()


def log_likelihood_gain(square_error: Tensor, variance: Tensor) -> float:
    """Nats per image by which these variances beat the best single one (equation 9) on the same errors.

    square_error, variance: (N, d). Below 0 where one number for all pixels would have been better.
    """
    best = square_error.mean()
    per_pixel = square_error / variance + variance.log()
    return float(0.5 * ((1 + best.log()) * square_error.shape[1] - per_pixel.sum(1).mean()))
