"""The penalties on the latents of DIP-VAE and WAE-MMD, each over all rows of the global batch."""

import torch
from torch import Tensor

# The scales s of the inverse multiquadratic kernels of Tolstikhin et al. (2018).
WAE_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def covariance(rows: Tensor) -> Tensor:
    """Cov[rows], (N, D) to (D, D), divided by N: the moment of the batch, as in Kumar et al. (2018)."""
    centred = rows - rows.mean(0)
    return centred.T @ centred / len(rows)


# Kumar et al. (2018), DIP-VAE-I: the covariance of the means; DIP-VAE-II: plus the mean posterior variance.
def dip_penalty(mean: Tensor, std: Tensor, *, second_kind: bool, off_diagonal: float, diagonal: float) -> Tensor:
    """off_diagonal * sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2 for mean, std of shape (N, D). Returns ()."""
    c = covariance(mean)
    if second_kind:
        c = c + torch.diag(std.square().mean(0))
    on = torch.diagonal(c)
    off = c.square().sum() - on.square().sum()
    return off_diagonal * off + diagonal * (on - 1).square().sum()


def _kernel_sum(square_distance: Tensor, width: int) -> Tensor:
    """sum_s C / (C + distance^2) with C = 2 D s, elementwise."""
    total = torch.zeros_like(square_distance)
    for scale in WAE_SCALES:
        c = 2.0 * width * scale
        total = total + c / (c + square_distance)
    return total


def _square_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 for (N, D) and (M, D). Returns (N, M), at least 0 whatever the rounding."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T).clamp_min(0)


# Tolstikhin et al. (2018), the unbiased estimate of the squared maximum mean discrepancy.
def mmd(z: Tensor, prior: Tensor) -> Tensor:
    """MMD^2 between latents z and draws of the prior, both (N, D), N at least 2. Returns (), which may fall below 0.

    The diagonals are left out of the zz and pp terms only.
    """
    n, width = z.shape
    same = _kernel_sum(_square_distances(z, z), width) + _kernel_sum(_square_distances(prior, prior), width)
    within = (same.sum() - torch.diagonal(same).sum()) / (n * (n - 1))
    return within - 2 * _kernel_sum(_square_distances(z, prior), width).mean()
