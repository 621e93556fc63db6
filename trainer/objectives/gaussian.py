"""Log-densities and divergences of Gaussians, in nats, summed over pixels or latent dimensions and never averaged."""

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


# Equations 5 to 7 with one variance for the data set, equation 10 with one variance a pixel.
def log_likelihood(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log p(x|z) = sum_k log N(x_k; mean_k, variance_k).

    x, mean: (B, C, H, W), in [0, 1]; variance: (1,) or (B, C, H, W), above 0. Returns nats per image, (B,).
    """
    d, pixels = math.prod(x.shape[1:]), (1, 2, 3)
    square_error = (x - mean).square()  # (B, C, H, W)
    if variance.ndim == 1:
        return -0.5 * (square_error.sum(pixels) / variance + d * (LOG_2PI + variance.log()))  # (B,)
    return -0.5 * (square_error / variance + variance.log() + LOG_2PI).sum(pixels)  # (B,)


def log_normal(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(z; mean, diag(std^2)) for z, mean, std of shape (..., D). Returns (...,)."""
    return -0.5 * (((z - mean) / std).square() + 2 * std.log() + LOG_2PI).sum(-1)


def log_prior(z: Tensor) -> Tensor:
    """log p(z) of the prior N(0, I) for z of shape (..., D). Returns (...,)."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)


# The second term of equation 8.
def kl_to_prior(mean: Tensor, std: Tensor) -> Tensor:
    """KL[N(mean, diag(std^2)) || N(0, I)] for mean, std of shape (B, D). Returns nats per image, (B,)."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1)


# Equation 9 for one batch: the mean over images, pixels and posterior samples.
def closed_form_variance(square_error: Tensor, pixels: Tensor | float) -> Tensor:
    """sigma*^2 from the summed square error over `pixels` pixel values. Returns a tensor of square_error's shape."""
    return square_error / pixels


def variance_floor_cap(d: int, floor: float) -> float:
    """The largest log p(x|z) in nats that d pixels can reach where every variance is at least `floor` (D3)."""
    return -0.5 * d * (LOG_2PI + math.log(floor))


def reparameterise(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """z = mean + std * noise, differentiable by mean and std. All of shape (B, D)."""
    return torch.addcmul(mean, std, noise)
