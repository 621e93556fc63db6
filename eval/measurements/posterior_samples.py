"""Samples of q(z|x) with every term of the bounds on log p(x), and the importance-weighted bound from them.

log p(x) cannot be computed, only bounded from below. With samples z_k ~ q(z|x) and weights
w_k = p(x|z_k) prior(z_k) / q(z_k|x), the mean of log w_k bounds it (the ELBO), and so does the log of the mean of w_k
(Burda et al. 2016), more tightly with every further sample. `prior` may be N(0, I) or any density over the latents,
such as the mixture fitted to the training encodings (equation 12).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from eval.images.blocks import noise_in_parts
from eval.measurements.discretised import log_discretised_likelihood
from eval.residuals.noise import CorrelatedNoise
from trainer.networks.model import Likelihood, Posterior
from trainer.objectives.families import log_likelihood
from trainer.objectives.gaussian import kl_to_prior, log_normal

Prior = Callable[[Tensor], Tensor]
"""Latents (N, D) to log-densities (N,) in nats."""


class LatentVariableModel(Protocol):
    """What a likelihood needs of a model."""

    latent_dim: int
    """D."""

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
    """log P(x|z), the probability of 8-bit pixels, (K, B); (0, B) for correlated noise, which has no closed form."""
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
def sample_posterior(
    model: LatentVariableModel, images: Tensor, noise: Tensor, correlated: CorrelatedNoise | None = None
) -> PosteriorSamples:
    """Draws z = mean + std * noise and evaluates every term there; p(x|z) has independent pixels or `correlated` ones.

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
        decoded = decoded._replace(mean=decoded.mean.double(), variance=decoded.variance.double())
        g, variance = decoded.mean, decoded.variance
        latents.append(z)
        continuous.append(correlated.log_likelihood(x, z, decoded) if correlated else log_likelihood(x, decoded))
        if correlated is None:
            discretised.append(log_discretised_likelihood(x, g, variance, decoded.family))
        log_q.append(log_normal(z.double(), mean, std))
        errors.append((g - x).square().flatten(1).mean(1))
    return PosteriorSamples(
        z=torch.stack(latents),
        log_likelihood=torch.stack(continuous),
        log_discretised=torch.stack(discretised) if discretised else mean.new_zeros(0, len(mean)),
        log_posterior=torch.stack(log_q),
        square_error=torch.stack(errors),
        posterior_mean=mean,
        kl=kl_to_prior(mean, std),
    )


SAMPLES_AT_A_TIME = 64
"""Samples of an image whose latents are held at a time."""


@dataclass(frozen=True, kw_only=True)
class ScoredSamples(PosteriorSamples):
    """Samples without their latents, whose log-densities were taken as they were drawn."""

    scores: tuple[tuple[Prior, Tensor], ...]
    """Densities, with log-densities (K, B)."""

    def prior_terms(self, prior: Prior) -> Tensor:
        """log prior(z), (K, B), of one of the densities."""
        return next(score for density, score in self.scores if density is prior)


def sample_many(
    model: LatentVariableModel,
    images: Tensor,
    densities: Sequence[Prior],
    *,
    seed: int,
    indices: Sequence[int],
    num_samples: int,
    correlated: CorrelatedNoise | None = None,
) -> PosteriorSamples:
    """`sample_posterior` with the noise of `image_noise`, in memory that hardly grows with the number of samples: a few
    numbers are kept of each, and no latents.

    densities: all that `prior_terms` will be asked for; indices: of the images, whose noise is theirs.
    """
    parts, scores = [], []
    noise_parts = noise_in_parts(seed, indices, num_samples, model.latent_dim, most=SAMPLES_AT_A_TIME)
    for noise in noise_parts:
        part = sample_posterior(model, images, noise.to(images.device), correlated)
        scores.append([part.prior_terms(density) for density in densities])
        parts.append(replace(part, z=part.z[:0]))
    return ScoredSamples(
        z=parts[0].z,
        log_likelihood=torch.cat([part.log_likelihood for part in parts]),
        log_discretised=torch.cat([part.log_discretised for part in parts]),
        log_posterior=torch.cat([part.log_posterior for part in parts]),
        square_error=torch.cat([part.square_error for part in parts]),
        posterior_mean=parts[0].posterior_mean,
        kl=parts[0].kl,
        scores=tuple(zip(densities, map(torch.cat, zip(*scores, strict=True)), strict=True)),
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
