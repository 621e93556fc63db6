"""WAE-MMD (Tolstikhin et al. 2018): square error, and the maximum mean discrepancy between latents and prior."""

import torch
from torch import Tensor

from trainer.objectives.objective import BatchPenalty

# The scales s of the inverse multiquadratic kernels of Tolstikhin et al. (2018).
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# Weight of the summed square error in the reference implementation, against which its lambda is given.
RECONSTRUCTION_WEIGHT = 0.05


def _kernel_sum(square_distance: Tensor, width: int) -> Tensor:
    """sum_s C / (C + distance^2) with C = 2 D s, elementwise."""
    total = torch.zeros_like(square_distance)
    for scale in SCALES:
        c = 2.0 * width * scale
        total = total + c / (c + square_distance)
    return total


def _square_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 for (N, D) and (M, D). Returns (N, M), at least 0 despite rounding."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T).clamp_min(0)


# Tolstikhin et al. (2018), the unbiased estimate of the squared maximum mean discrepancy.
def mmd(z: Tensor, prior: Tensor) -> Tensor:
    """MMD^2 between latents z and draws of the prior, both (N, D), N at least 2. Returns (), which may be below 0.

    Only the terms within z and within the prior omit their diagonals.
    """
    n, width = z.shape
    same = _kernel_sum(_square_distances(z, z), width) + _kernel_sum(_square_distances(prior, prior), width)
    within = (same.sum() - torch.diagonal(same).sum()) / (n * (n - 1))
    return within - 2 * _kernel_sum(_square_distances(z, prior), width).mean()


class WaeMmd(BatchPenalty):
    """WAE-MMD in place of the KL term."""

    draws_prior = True

    def rows(self, mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
        """[z, std], (b, 2 D)."""
        # std is not used, but z as a view with this stride keeps the rounding of earlier runs' matrix products.
        return torch.cat([z, std], dim=1)

    def __call__(self, rows: Tensor, prior: Tensor) -> Tensor:
        z, _ = rows.chunk(2, dim=1)  # (n, D)
        # The estimate needs two rows: a batch of one image trains reconstruction alone.
        return self.config.wae_weight * (mmd(z, prior) if len(z) > 1 else z.sum() * 0)

    def loss(self, negative_elbo: Tensor, square_error: Tensor) -> Tensor:
        """The weighted square error alone."""
        return RECONSTRUCTION_WEIGHT * square_error
