"""The image sets that are compared with real images, by the names in `eval.questions.SOURCES`."""

from dataclasses import dataclass

import torch

from data_shards.io.errors import InputError
from eval.images.blocks import BLOCK
from eval.images.sources import (
    ImageSource,
    flow_sampler,
    from_shards,
    generated,
    mixture_sampler,
    prior_sampler,
    reconstructed,
)
from eval.questions import DistanceQuestion
from eval.run import MeasuredRun, mixture_digest
from eval.transport import load_transport
from trainer.flow import load_flow
from trainer.run_folder.checkpoint import fingerprint


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """A set of images, with what the protocol says of it."""

    images: ImageSource
    """Any block of the set."""
    n: int
    """Number of images in it."""
    latents: str = ""
    """How each was generated, in words; empty for real images."""
    mixture: str = ""
    """The density sampled, as COMPONENTS-COVARIANCE; empty where none is."""
    mixture_digest: str = ""
    """Digest of the parameters of the density, and of the transport for transported."""


def compared_images(run: MeasuredRun, question: DistanceQuestion, device: torch.device) -> ComparedImages:
    """The set that a question is about; `half` has half a split. Raises InputError where there are too few images."""
    shards, model, n, seed = run.config.data.shards, run.model, question.images, question.seed
    mixture = f"{question.mixture}-{question.covariance}"
    if question.source == "q_hat":
        density = run.mixture(question.mixture, question.covariance)
        sampler = mixture_sampler(density.parameters)
        images = generated(model, sampler, n=n, seed=seed, device=device)
        return ComparedImages(
            images=images, n=n, latents="z ~ q_hat, image g(z)", mixture=mixture, mixture_digest=mixture_digest(density)
        )
    if question.source == "transported":
        transport = load_transport(run, question.mixture, question.covariance)
        sampler = mixture_sampler(transport.mixture.parameters)
        images = generated(model, sampler, n=n, seed=seed, device=device, finish=transport.apply)
        return ComparedImages(
            images=images, n=n, latents="z ~ q_hat, image A(g(z))", mixture=mixture, mixture_digest=transport.digest
        )
    if question.source == "prior":
        images = generated(model, prior_sampler(model.latent_dim), n=n, seed=seed, device=device)
        return ComparedImages(images=images, n=n, latents="z ~ N(0, I), image g(z)")
    if question.source == "flow":
        flow = load_flow(run.folder, run.weights)
        images = generated(model, flow_sampler(flow), n=n, seed=seed, device=device)
        digest = f"{fingerprint(flow.state_dict()):016x}"
        return ComparedImages(images=images, n=n, latents="z ~ flow, image g(z)", mixture_digest=digest)
    if question.source == "reconstruction":
        _require_images(run, question.split, n)
        images = reconstructed(model, from_shards(shards, question.split, n=n), device=device)
        return ComparedImages(images=images, n=n, latents="z = mean of q(z|x), image g(z)")
    if question.source == "train":
        _require_images(run, "train", n)
        return ComparedImages(images=from_shards(shards, "train", n=n, shuffle=True, seed=seed), n=n)
    images, n = half_of(run, question.split, 0, seed=seed)
    return ComparedImages(images=images, n=n)


def half_of(run: MeasuredRun, split: str, half: int, *, seed: int) -> tuple[ImageSource, int]:
    """Half 0 or 1 of a seeded shuffle of a split, both of the same whole number of blocks, and its size."""
    n = run.manifest.num_samples(split) // (2 * BLOCK) * BLOCK
    if n == 0:
        raise InputError(f"{split} has fewer than {2 * BLOCK} images, too few for two halves", parameter="split")
    return from_shards(run.config.data.shards, split, n=n, shuffle=True, seed=seed, offset=half * n), n


def _require_images(run: MeasuredRun, split: str, n: int) -> None:
    available = run.manifest.num_samples(split)
    if n > available:
        raise InputError(f"{n} images, but split {split} has {available}; use at most {available}", parameter="n")
