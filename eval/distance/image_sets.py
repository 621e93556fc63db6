"""The image sets that are compared with real images, by the names they have on the command line."""

from dataclasses import dataclass
from typing import Any

import torch

from data_shards.io.errors import InputError
from eval.images.blocks import BLOCK
from eval.images.latent_samples import flow_sampler, mixture_sampler, prior_sampler
from eval.images.sources import ImageSource, from_shards, generated, reconstructed
from eval.run import MeasuredRun, mixture_digest
from eval.transport.storage import load_transport
from trainer.flow.storage import load_flow
from trainer.run_folder.checkpoint import fingerprint

SOURCES = {
    "q_hat": "samples from the fitted mixture",
    "transported": "the same, carried to the spread of real images, see python -m eval transport",
    "prior": "samples from N(0, I)",
    "flow": "samples from the flow fitted to the codes, see python -m trainer.flow",
    "reconstruction": "reconstructions of the reference split's own images",
    "train": "training images, the first of a seeded shuffle",
    "half": "one half of the reference split against the other: what no model can be expected to beat",
}


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """A set of images with the protocol fields that describe it."""

    images: ImageSource
    """Any block of the set."""
    n: int
    """Number of images in it."""
    fields: dict[str, Any]
    """Fields of `DistanceProtocol`."""


def compared_images(
    run: MeasuredRun, source: str, *, n: int, split: str, seed: int, mixture: int, covariance: str, device: torch.device
) -> ComparedImages:
    """The set `source`, one of SOURCES, of n images; `half` has half a split. Raises InputError where it is short."""
    shards, model = run.config.data.shards, run.model
    fields: dict[str, Any] = {"source": source, "latents": ""}
    if source == "q_hat":
        density = run.mixture(mixture, covariance)
        fields |= {"latents": "z ~ q_hat, image g(z)", "mixture": f"{mixture}-{covariance}"}
        fields |= {"mixture_digest": mixture_digest(density)}
        images = generated(model, mixture_sampler(density.parameters_), n=n, seed=seed, device=device)
    elif source == "transported":
        transport = load_transport(run, mixture, covariance)
        fields |= {"latents": "z ~ q_hat, image A(g(z))", "mixture": f"{mixture}-{covariance}"}
        fields |= {"mixture_digest": transport.digest}
        sampler = mixture_sampler(transport.mixture.parameters_)
        images = generated(model, sampler, n=n, seed=seed, device=device, finish=transport.carry)
    elif source == "prior":
        fields |= {"latents": "z ~ N(0, I), image g(z)"}
        images = generated(model, prior_sampler(model.latent_dim), n=n, seed=seed, device=device)
    elif source == "flow":
        flow = load_flow(run.folder, run.weights)
        fields |= {"latents": "z ~ flow, image g(z)", "mixture_digest": f"{fingerprint(flow.state_dict()):016x}"}
        images = generated(model, flow_sampler(flow), n=n, seed=seed, device=device)
    elif source == "reconstruction":
        _require_images(run, split, n)
        fields |= {"latents": "z = mean of q(z|x), image g(z)"}
        images = reconstructed(model, from_shards(shards, split, n=n), device=device)
    elif source == "train":
        _require_images(run, "train", n)
        images = from_shards(shards, "train", n=n, shuffle=True, seed=seed)
    else:
        images, n = half_of(run, split, 0, seed=seed)
    return ComparedImages(images=images, n=n, fields=fields)


def half_of(run: MeasuredRun, split: str, half: int, *, seed: int) -> tuple[ImageSource, int]:
    """Half 0 or 1 of a seeded shuffle of a split, both of the same whole number of blocks, and its size."""
    n = run.manifest.num_samples(split) // (2 * BLOCK) * BLOCK
    if n == 0:
        raise InputError(f"--split: {split} has fewer than {2 * BLOCK} images, too few for two halves")
    return from_shards(run.config.data.shards, split, n=n, shuffle=True, seed=seed, offset=half * n), n


def _require_images(run: MeasuredRun, split: str, n: int) -> None:
    there = run.manifest.num_samples(split)
    if n > there:
        raise InputError(f"--n: {n} images are asked for, but split {split} has {there}; use at most {there}")
