"""Latents to generate from: draws from the prior and from the mixture q_hat (equation 12), block by block."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from eval.blocks import BLOCK

LatentSampler = Callable[[torch.Generator], Tensor]
"""A block's generator to its BLOCK latents, (BLOCK, D) float32."""


class Mixture(Protocol):
    """A fitted Gaussian mixture with scikit-learn's names; covariance shapes as there."""

    covariance_type: str

    @property
    def weights_(self) -> Tensor:
        """(K,)."""
        ...

    @property
    def means_(self) -> Tensor:
        """(K, D)."""
        ...

    @property
    def covariances_(self) -> Tensor:
        """(K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical."""
        ...


def prior_sampler(latent_dim: int) -> LatentSampler:
    """Draws from N(0, I)."""
    return lambda generator: torch.randn(BLOCK, latent_dim, generator=generator)


def mixture_sampler(mixture: Mixture) -> LatentSampler:
    """Independent draws from a mixture: a component by its weight, then that component's Gaussian.

    Only the components that were drawn are factorised, so that a block costs the same for 32 components and 10,000.
    """
    cumulative = mixture.weights_.double().cpu().cumsum(0)
    means, covariances = mixture.means_.double().cpu(), mixture.covariances_.double().cpu()
    kind, dim = mixture.covariance_type, means.shape[1]

    def sample(generator: torch.Generator) -> Tensor:
        uniform = torch.rand(BLOCK, dtype=torch.float64, generator=generator)
        noise = torch.randn(BLOCK, dim, dtype=torch.float64, generator=generator)
        chosen = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp_max(len(cumulative) - 1)
        if kind in ("full", "tied"):
            factors = torch.linalg.cholesky(covariances[chosen] if kind == "full" else covariances)  # ([B,] D, D)
            scaled = (factors @ noise[:, :, None])[:, :, 0]
        else:
            variances = covariances[chosen] if kind == "diag" else covariances[chosen, None]  # (B, D) or (B, 1)
            scaled = variances.sqrt() * noise
        return (means[chosen] + scaled).float()

    return sample
