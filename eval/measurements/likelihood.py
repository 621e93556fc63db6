"""How likely held-out images are under a run: importance-weighted and evidence lower bounds, with standard errors.

log p(x) cannot be computed, only bounded from below. With samples z_k ~ q(z|x) and weights
w_k = p(x|z_k) prior(z_k) / q(z_k|x), the mean of log w_k bounds it (the ELBO), and so does the log of the mean of w_k
(Burda et al. 2016), more tightly with every further sample. `prior` may be N(0, I) or any density over the latents,
such as the mixture fitted to the training encodings (equation 12).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from data_shards.io.progress import Progress
from eval.images.blocks import gathered, noise_in_parts, own_places, subset_blocks, subset_indices
from eval.measured_once import measured_once
from eval.measurements.annealed import ANNEALED_UNITS, Annealing, annealed_values, joint_density
from eval.measurements.latent_divergence import divergence
from eval.measurements.quantiles import log_cdf
from eval.protocol import LikelihoodProtocol
from eval.questions import LikelihoodQuestion
from eval.residuals.noise import CorrelatedNoise
from eval.residuals.stored import load_noise
from eval.results import LikelihoodResult, Measured
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.density import MixtureDensity
from trainer.networks.model import Likelihood, Posterior
from trainer.objectives.families import cap, log_likelihood
from trainer.objectives.gaussian import kl_to_prior, log_normal, log_prior
from trainer.process_group import Ranks
from trainer.updates.evaluation import ACTIVE_VARIANCE

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


# name: unit, for every model
_OF_THE_MODEL = {
    "elbo": "nats per image",
    "log_likelihood": "nats per image",
    "kl": "nats per image",
    "mean_square_error": "squared pixel units",
}
# and for every density over the latents
_OF_A_DENSITY = {
    "iwae": "nats per image",
    "bits_per_dimension": "bits per pixel value",
    "effective_samples": "samples",
}
_OF_THE_MIXTURE = {"held_out_log_ratio": "nats per image"}


def units(densities: Mapping[str, Prior], *, discretised: bool = True) -> dict[str, str]:
    """Name and unit of every number, in order.

    densities: "prior", and "q_hat" where a mixture was fitted; discretised: whether 8-bit pixels have probabilities.
    """
    of_each = {name: text for name, text in _OF_A_DENSITY.items() if discretised or name != "bits_per_dimension"}
    named = {f"{name}_{density}": text for density in densities for name, text in of_each.items()}
    return _OF_THE_MODEL | named | (_OF_THE_MIXTURE if "q_hat" in densities else {})


def image_values(samples: PosteriorSamples, d: int, densities: Mapping[str, Prior]) -> Tensor:
    """The numbers of `units` for B images of d pixel values, (B, number of units), float64.

    held_out_log_ratio is E_q[log q_hat(z) - log p(z)]; KL(q_hat || p) is the same mean over q_hat's own samples. Where
    KL(q_hat || p) is much the larger, the mixture remembers its training codes.
    """
    values = {
        "elbo": samples.elbo(),
        "log_likelihood": samples.log_likelihood.mean(0),
        "kl": samples.kl,
        "mean_square_error": samples.square_error.mean(0),
    }
    log_densities = {name: samples.prior_terms(density) for name, density in densities.items()}  # (K, B) each
    for name, log_density in log_densities.items():
        log_ratio = log_density - samples.log_posterior
        log_weights = samples.log_likelihood + log_ratio
        values[f"iwae_{name}"] = log_mean_exp(log_weights)
        values[f"effective_samples_{name}"] = effective_samples(log_weights)
        if len(samples.log_discretised):
            nats = log_mean_exp(samples.log_discretised + log_ratio)
            values[f"bits_per_dimension_{name}"] = bits_per_dimension(nats, d)
    if "q_hat" in log_densities:
        values["held_out_log_ratio"] = (log_densities["q_hat"] - log_densities["prior"]).mean(0)
    named = units(densities, discretised=len(samples.log_discretised) > 0)
    return torch.stack([values[name] for name in named], dim=1)


def summary(table: Tensor, named: Mapping[str, str]) -> dict[str, Measured]:
    """Mean over the images of a table (N, number of units), with its standard error (None for one image) and unit."""
    error = table.std(0) / len(table) ** 0.5
    return {
        name: Measured(
            value=table[:, column].mean().item(),
            standard_error=error[column].item() if len(table) > 1 else None,
            unit=text,
        )
        for column, (name, text) in enumerate(named.items())
    }


def measure_likelihood(
    run: MeasuredRun, question: LikelihoodQuestion, ranks: Ranks, *, steal: bool = False
) -> LikelihoodResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/likelihood[-stage1]-ADDRESS.json, and read from there where the same was measured before.
    steal: takes the file from another job that measures it. Raises InputError where there is one, the split is too
    small, or the mixture missing.
    """
    mixture = run.mixture(question.mixture, question.covariance, ranks.device) if question.mixture else None
    correlated = None if question.noise == "independent" else load_noise(run, question.residuals, ranks)
    protocol = run.protocol(
        LikelihoodProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure=LikelihoodResult.MEASURE,
        importance_samples=question.samples,
        mixture=f"{question.mixture}-{question.covariance}" if mixture else "",
        mixture_digest=mixture_digest(mixture) if mixture else "",
        noise=question.noise,
        floor=question.floor if correlated else "",
        residuals=correlated.digest if correlated else "",
        annealing=annealing.record() if (annealing := _annealing(question)) else None,
    )
    path = run.result_path("likelihood", protocol)
    with measured_once(LikelihoodResult, path, protocol, ranks, steal=steal) as place:
        if place.found is not None:
            return place.found
        result = _measured(run, question, mixture, correlated, protocol, ranks)
        place.save(result)
    return result


def _annealing(question: LikelihoodQuestion) -> Annealing | None:
    return Annealing(steps=question.annealing, chains=question.chains) if question.annealing else None


@torch.no_grad()
def _measured(
    run: MeasuredRun,
    question: LikelihoodQuestion,
    mixture: MixtureDensity | None,
    correlated: CorrelatedNoise | None,
    protocol: LikelihoodProtocol,
    ranks: Ranks,
) -> LikelihoodResult:
    densities: dict[str, Prior] = {"prior": log_prior}
    if mixture:
        densities["q_hat"] = mixture.score_samples
    indices = subset_indices(run.manifest, question.split, question.images)
    of_samples = units(densities, discretised=correlated is None)
    annealing = _annealing(question)
    of_annealing = {f"{name}_{density}": text for density in densities for name, text in ANNEALED_UNITS.items()}
    named = of_samples | (of_annealing if annealing else {})
    table = torch.zeros(len(indices), len(named), dtype=torch.float64)
    posterior_means = torch.zeros(len(indices), run.model.latent_dim, dtype=torch.float64)
    mine = own_places(len(indices), ranks)
    with Progress(f"likelihood, {run.weights} weights", len(mine), show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, images in subset_blocks(run.config.data.location, question.split, indices, ranks):
            samples = sample_many(
                run.model,
                images,
                list(densities.values()),
                seed=question.seed,
                indices=index.tolist(),
                num_samples=question.samples,
                correlated=correlated,
            )
            table[places, : len(of_samples)] = image_values(samples, run.model.pixels, densities).cpu()
            if annealing:
                joints = [joint_density(run.model.decode, images, prior, correlated) for prior in densities.values()]
                posterior, numbers = run.model.encode(images), index.tolist()
                values = annealed_values(posterior, joints, numbers, annealing, seed=question.seed)
                table[places, len(of_samples) :] = values.cpu()
            posterior_means[places] = samples.posterior_mean.cpu()
            bar.update(places.stop - mine.start)
    varies = gathered(posterior_means, ranks).var(0, correction=0) > ACTIVE_VARIANCE
    return LikelihoodResult(
        protocol=protocol,
        values=summary(gathered(table, ranks), named),
        active_dimensions=int(varies.sum()),
        latent_kl=divergence(mixture, question.seed, ranks) if mixture else None,
        cap=correlated.cap if correlated else cap(run.model.pixels, run.variance_floor, protocol.family),
        dataset_variance=run.model.dataset_variance,
    )
