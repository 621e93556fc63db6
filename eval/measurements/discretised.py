"""Probabilities of 8-bit pixels: the mass that a density of pixels puts on each of the 256 levels."""

import math

import torch
from torch import Tensor

from eval.measurements.quantiles import log_cdf

# Levels of an 8-bit pixel; probabilities of levels are free of the pixel scale and comparable between models.
LEVELS = 256

HALF_BIN = 0.5 / (LEVELS - 1)


def log_interval_probability(lower: Tensor, upper: Tensor, family: str = "gaussian") -> Tensor:
    """log(F(upper) - F(lower)) of a standardised family for lower < upper, infinite ends allowed; any shape."""
    # F loses its digits near 1, so an interval on the positive side is mirrored to the negative one.
    mirrored = lower > 0
    low = torch.where(mirrored, -upper, lower)
    high = torch.where(mirrored, -lower, upper)
    log_low, log_high = log_cdf(low, family), log_cdf(high, family)
    return log_high + torch.log1p(-torch.exp(log_low - log_high))


def log_discretised_likelihood(x: Tensor, mean: Tensor, variance: Tensor, family: str = "gaussian") -> Tensor:
    """log P(x|z) of pixels n / 255, each given the density's mass in its bin of width 1/255.

    The bins of levels 0 and 255 reach to minus and plus infinity, so that the 256 probabilities of a pixel sum to 1.
    x, mean: (B, C, H, W) in [0, 1]; variance: (1,) or (B, C, H, W), above 0. Returns nats per image, (B,), float64.
    """
    x, mean, std = x.double(), mean.double(), variance.double().sqrt()
    lower = torch.where(x < HALF_BIN, -math.inf, (x - HALF_BIN - mean) / std)
    upper = torch.where(x > 1 - HALF_BIN, math.inf, (x + HALF_BIN - mean) / std)
    return log_interval_probability(lower, upper, family).flatten(1).sum(1)  # (B,)


def bits_per_dimension(nats: Tensor, d: int) -> Tensor:
    """Bits per pixel value of an image whose discretised log-likelihood is `nats`, for d = C * H * W."""
    return -nats / (d * math.log(2))
