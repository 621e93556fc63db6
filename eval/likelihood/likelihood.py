"""How likely images are under a trained model: importance-weighted and evidence lower bounds.

log p(x) cannot be computed, only bounded from below. With samples z_k ~ q(z|x) and weights
w_k = p(x|z_k) prior(z_k) / q(z_k|x), the mean of log w_k bounds it (the ELBO), and so does the log of the mean of w_k
(Burda et al. 2016), more tightly with every further sample. `prior` may be N(0, I) or any density over the latents,
such as the mixture fitted to the training encodings (equation 12).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eval.likelihood.discretised import log_discretised_likelihood
from trainer.networks.model import Likelihood, Posterior
from trainer.objectives.gaussian import kl_to_prior, log_likelihood, log_normal

Prior = Callable[[Tensor], Tensor]
"""Latents (N, D) to log-densities (N,) in nats."""


class LatentVariableModel(Protocol):
    """What a likelihood needs of a model."""

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x) of images (B, C, H, W) in [0, 1]."""
        ...

    def decode(self, z: Tensor) -> Likelihood:
        """p(x|z) of latents (B, D)."""
        ...


@dataclass(frozen=True, kw_only=True)
class PosteriorSamples:
    """K samples z ~ q(z|x) of B images, and every term of the bounds, in float64 nats."""

    z: Tensor
    """(K, B, D)."""
    log_likelihood: Tensor
    """log p(x|z), the density of pixels in [0, 1], (K, B)."""
    log_discretised: Tensor
    """log P(x|z), the probability of 8-bit pixels, (K, B)."""
    log_posterior: Tensor
    """log q(z|x), (K, B)."""
    square_error: Tensor
    """Mean over the pixels of (g(z) - x)^2, (K, B)."""
    posterior_mean: Tensor
    """Mean of q(z|x), (B, D)."""
    kl: Tensor
    """KL[q(z|x) || N(0, I)] in closed form, (B,)."""

    def prior_terms(self, prior: Prior) -> Tensor:
        """log prior(z), (K, B)."""
        K, B, D = self.z.shape
        return torch.as_tensor(prior(self.z.reshape(K * B, D))).double().reshape(K, B)

    def elbo(self) -> Tensor:
        """E_q[log p(x|z)] - KL[q(z|x) || N(0, I)] (equation 3), the expectation over the K samples, (B,)."""
        return self.log_likelihood.mean(0) - self.kl


@torch.no_grad()
def sample_posterior(model: LatentVariableModel, images: Tensor, noise: Tensor) -> PosteriorSamples:
    """Draws z = mean + std * noise and evaluates every term there.

    images: float (B, C, H, W) in [0, 1]; noise: standard normal, (K, B, D). The samples are decoded one after the
    other, so that memory does not grow with K.
    """
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; give floating-point pixels in [0, 1]")
    posterior = model.encode(images)
    mean, std = posterior.mean.double(), posterior.std.double()  # (B, D)
    x = images.double()
    latents, continuous, discretised, log_q, errors = [], [], [], [], []
    for eps in noise:  # (B, D)
        z = posterior.mean + posterior.std * eps
        decoded = model.decode(z)
        g, variance = decoded.mean.double(), decoded.variance.double()
        latents.append(z)
        continuous.append(log_likelihood(x, g, variance))
        discretised.append(log_discretised_likelihood(x, g, variance))
        log_q.append(log_normal(z.double(), mean, std))
        errors.append((g - x).square().flatten(1).mean(1))
    return PosteriorSamples(
        z=torch.stack(latents),
        log_likelihood=torch.stack(continuous),
        log_discretised=torch.stack(discretised),
        log_posterior=torch.stack(log_q),
        square_error=torch.stack(errors),
        posterior_mean=mean,
        kl=kl_to_prior(mean, std),
    )


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log of the mean of exp(log_weights) over the first axis: (K, B) to (B,)."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def effective_samples(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 over the first axis, from 1 (one sample outweighs the rest) to K: (K, B) to (B,).

    Near 1 the importance-weighted bound still rises with the number of samples.
    """
    return torch.exp(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0))


def importance_weighted(
    model: LatentVariableModel,
    images: Tensor,
    prior: Prior,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The importance-weighted bound on log p(x) from `num_samples` samples of q(z|x).

    images: float (B, C, H, W) in [0, 1]; prior: see `Prior`; generator: source of the noise, on the CPU.
    Returns nats per image, (B,), float64.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 is needed")
    with torch.no_grad():
        shape = (num_samples, *model.encode(images).mean.shape)
    noise = torch.randn(shape, generator=generator).to(images)  # (K, B, D)
    samples = sample_posterior(model, images, noise)
    return log_mean_exp(samples.log_likelihood + samples.prior_terms(prior) - samples.log_posterior)
