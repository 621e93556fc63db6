"""DIP-VAE (Kumar et al. 2018): a penalty on the covariance of the posterior means, or of the aggregate posterior."""

import torch
from torch import Tensor

from trainer.objectives.objective import BatchPenalty


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


class DipVae1(BatchPenalty):
    """DIP-VAE-I: the covariance of the means, whose diagonal weighs ten times the rest."""

    second_kind, diagonal_weight = False, 10

    def rows(self, mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
        """[mean, std], (b, 2 D)."""
        return torch.cat([mean, std], dim=1)

    def __call__(self, rows: Tensor, prior: Tensor) -> Tensor:
        mean, std = rows.chunk(2, dim=1)  # (n, D) each
        weight = self.config.dip_off_diagonal
        return dip_penalty(
            mean, std, second_kind=self.second_kind, off_diagonal=weight, diagonal=self.diagonal_weight * weight
        )


class DipVae2(DipVae1):
    """DIP-VAE-II: the covariance of the aggregate posterior, all of whose entries have one weight."""

    second_kind, diagonal_weight = True, 1
