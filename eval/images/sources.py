"""Sets of images of which any block can be made by itself: generated, reconstructed, or read from shards.

Latents to generate from are drawn block by block, here from the prior or the mixture q_hat (equation 12).
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.address import Location
from data_shards.io.errors import InputError
from data_shards.stream.stream import ShardStream
from eval.images.blocks import BLOCK, block_ids
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.parameters import Parameters
from trainer.networks.model import SigmaVAE
from trainer.noise import seeded_generator
from trainer.objectives.gaussian import log_prior
from trainer.run_folder.checkpoint import fingerprint

LatentSampler = Callable[[torch.Generator], Tensor]
"""A block's generator to its BLOCK latents, (BLOCK, D) float32."""

ImageSource = Callable[[range], Iterator[tuple[Tensor, Tensor]]]
"""A range of blocks to (ids (B,) int64, images (B, C, H, W) uint8) of each."""

Finish = Callable[[Tensor, Tensor], Tensor]
"""Latents (B, D) and their mean images (B, C, H, W) to the images that are taken in their place."""


@dataclass(frozen=True, kw_only=True)
class LoadedDensity:
    """A density of latents with the parameters that were fitted to a run, see `eval.images.densities`."""

    sampler: LatentSampler
    """Draws the latents of a block."""
    finish: Finish | None = None
    """What becomes of their mean images; None where they stay as they are."""
    walk: Finish | None = None
    """The same along a walk, continuous in the latents; None where `finish` is that already."""
    log_density: Callable[[torch.device], Callable[[Tensor], Tensor]] | None = None
    """A device to the function of latents (N, D) there to log-densities (N,) in nats; None where images are changed."""
    tempered: Callable[[float], LatentSampler] | None = None
    """A factor on the deviations to the sampler of the narrower or wider density; None where there is no such."""
    digest: str = ""
    """16 hexadecimal digits that differ between different parameters; empty where there are none."""


def prior_density(run: MeasuredRun, components: int, covariance: str) -> LoadedDensity:
    """N(0, I)."""
    return LoadedDensity(
        sampler=prior_sampler(run.model.latent_dim),
        log_density=lambda device: log_prior,
        tempered=partial(prior_sampler, run.model.latent_dim),
    )


def mixture_density(run: MeasuredRun, components: int, covariance: str) -> LoadedDensity:
    """The mixture q_hat of the run's codes."""
    mixture = run.mixture(components, covariance)

    def log_density(device: torch.device) -> Callable[[Tensor], Tensor]:
        there = mixture if device.type == "cpu" else run.mixture(components, covariance, device)
        return there.score_samples

    return LoadedDensity(
        sampler=mixture_sampler(mixture.parameters),
        log_density=cache(log_density),
        tempered=partial(mixture_sampler, mixture.parameters),
        digest=mixture_digest(mixture),
    )


def flow_density(run: MeasuredRun, components: int, covariance: str) -> LoadedDensity:
    """The flow fitted to the run's codes."""
    flow = run.flow()
    return LoadedDensity(
        sampler=lambda generator: flow.sample(BLOCK, generator),
        # A copy, as samples are drawn on the CPU.
        log_density=cache(lambda device: copy.deepcopy(flow).to(device).score_samples),
        digest=f"{fingerprint(flow.state_dict()):016x}",
    )


def prior_sampler(latent_dim: int, temperature: float = 1.0) -> LatentSampler:
    """Draws from N(0, temperature^2 I)."""
    return lambda generator: temperature * torch.randn(BLOCK, latent_dim, generator=generator)


def mixture_sampler(parameters: Parameters, temperature: float = 1.0) -> LatentSampler:
    """Independent draws from a mixture: a component by its weight, then that component's Gaussian.

    temperature: a factor on each component's deviations; below 1 latents lie nearer to the components' means.

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
        return (parameters.means[chosen] + temperature * scaled).float()

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


def unchanged(latents: Tensor, images: Tensor) -> Tensor:
    """The mean images themselves."""
    return images


def require_finite(images: Tensor) -> Tensor:
    """The images. Raises InputError where one has pixels that are not finite, which would be black in 8 bits."""
    if not images.isfinite().all():
        raise InputError("images of such latents are not finite; use a smaller one", parameter="temperature")
    return images


def to_8_bits(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to 0 to 255, as they would be in a PNG file; data sets are of 8 bits too."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def block_latents(sampler: LatentSampler, seed: int, block: int) -> Tensor:
    """The latents of a block of generated images, (BLOCK, D); latent i of a set is a function of (seed, i)."""
    return sampler(seeded_generator(seed, "samples", block))


def generated(
    model: SigmaVAE,
    sampler: LatentSampler,
    *,
    n: int,
    seed: int,
    device: torch.device,
    finish: Finish = unchanged,
) -> ImageSource:
    """Mean images g(z) of n latents z. Image i is a function of (seed, i).

    finish: what becomes of them; an image must not depend on the others.
    """

    @torch.inference_mode()
    def images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        for block in blocks:
            ids = block_ids(block, n)
            # The whole block is decoded, so that an image does not change where a set ends sooner.
            latents = block_latents(sampler, seed, block).to(device)
            made = require_finite(finish(latents, model.decode(latents).mean))
            yield ids, to_8_bits(made)[: len(ids)].cpu()

    return images


def from_shards(
    shards: str | Path | Location, split: str, *, n: int, shuffle: bool = False, seed: int = 0, offset: int = 0
) -> ImageSource:
    """n real images from position `offset`, a multiple of BLOCK, in the order of the source or of a seeded shuffle."""

    def images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        if not blocks:
            return
        stream = ShardStream(
            shards,
            split=split,
            global_batch=BLOCK,
            seed=seed,
            position=offset + blocks.start * BLOCK,
            shuffle=shuffle,
        )
        for block, batch in zip(blocks, islice(stream, len(blocks)), strict=True):
            ids = block_ids(block, n)
            yield ids, batch.image[: len(ids)]

    return images


def reconstructed(model: SigmaVAE, source: ImageSource, *, device: torch.device) -> ImageSource:
    """g(mu(x)): the mean image at the mean of q(z|x), for each image x of `source`."""

    @torch.inference_mode()
    def images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        for ids, real in source(blocks):
            mean = model.encode(real.to(device).float() / 255).mean
            yield ids, to_8_bits(model.decode(mean).mean).cpu()

    return images
