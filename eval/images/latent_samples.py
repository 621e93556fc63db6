"""Latents to generate from: draws from the prior, the mixture q_hat (equation 12) or a flow, block by block."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from eval.images.blocks import BLOCK
from trainer.flow import LatentFlow
from trainer.mixture.parameters import Parameters

LatentSampler = Callable[[torch.Generator], Tensor]
"""A block's generator to its BLOCK latents, (BLOCK, D) float32."""


def prior_sampler(latent_dim: int) -> LatentSampler:
    """Draws from N(0, I)."""
    return lambda generator: torch.randn(BLOCK, latent_dim, generator=generator)


def flow_sampler(flow: LatentFlow) -> LatentSampler:
    """Draws from a normalising flow on the codes."""
    return lambda generator: flow.sample(BLOCK, generator)


def mixture_sampler(parameters: Parameters) -> LatentSampler:
    """Independent draws from a mixture: a component by its weight, then that component's Gaussian.

    Only the components that were drawn are factorised, so that a block costs the same for 32 components and 10,000.
    """
    parameters = parameters.to("cpu")
    cumulative = parameters.weights.cumsum(0)

    def sample(generator: torch.Generator) -> Tensor:
        uniform = torch.rand(BLOCK, dtype=torch.float64, generator=generator)
        noise = torch.randn(BLOCK, parameters.dim, dtype=torch.float64, generator=generator)
        # Rounding may leave the last sum below the largest uniform number.
        chosen = torch.searchsorted(cumulative, uniform, right=True).clamp_max(len(cumulative) - 1)
        if parameters.covariance_type in ("full", "tied"):
            factors = _chosen(parameters, chosen).cholesky(slice(0, BLOCK))  # (B, D, D), or (1, D, D) for tied
            scaled = (factors @ noise[:, :, None])[:, :, 0]
        else:
            scaled = _chosen(parameters, chosen).covariances.sqrt() * noise
        return (parameters.means[chosen] + scaled).float()

    return sample


def _chosen(parameters: Parameters, components: Tensor) -> Parameters:
    """The components `components` of a mixture, one for each draw."""
    tied = parameters.covariance_type == "tied"
    return replace(
        parameters,
        weights=parameters.weights[components],
        means=parameters.means[components],
        covariances=parameters.covariances if tied else parameters.covariances[components],
    )
