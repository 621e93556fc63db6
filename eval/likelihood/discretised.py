"""The probability of 8-bit pixels under a Gaussian, which is free of the pixel scale and comparable between models."""

import math

import torch
from torch import Tensor

LEVELS = 256
HALF_BIN = 0.5 / (LEVELS - 1)


def log_interval_probability(lower: Tensor, upper: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)) of the standard normal for lower < upper, infinite ends allowed; any shape."""
    # Phi loses its digits near 1, so an interval on the positive side is mirrored to the negative one.
    mirrored = lower > 0
    low = torch.where(mirrored, -upper, lower)
    high = torch.where(mirrored, -lower, upper)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + torch.log1p(-torch.exp(log_low - log_high))


def log_discretised_likelihood(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log P(x|z) of pixels n / 255, each given the Gaussian's mass in its bin of width 1/255.

    The bins of levels 0 and 255 reach to minus and plus infinity, so that the 256 probabilities of a pixel sum to 1.
    x, mean: (B, C, H, W) in [0, 1]; variance: (1,) or (B, C, H, W), above 0. Returns nats per image, (B,), float64.
    """
    x, mean, std = x.double(), mean.double(), variance.double().sqrt()
    lower = torch.where(x < HALF_BIN, -math.inf, (x - HALF_BIN - mean) / std)
    upper = torch.where(x > 1 - HALF_BIN, math.inf, (x + HALF_BIN - mean) / std)
    return log_interval_probability(lower, upper).flatten(1).sum(1)  # (B,)


def bits_per_dimension(nats: Tensor, d: int) -> Tensor:
    """Bits per pixel value of an image whose discretised log-likelihood is `nats`, for d = C * H * W."""
    return -nats / (d * math.log(2))
