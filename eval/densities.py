"""The densities that latents are drawn from, and all sets of images that are compared with real ones, by name.

A new density is a file in `eval/images` with a function such as `_flow` below, and an entry with its name in DENSITIES:
the command fid, the protocols, the report and `open_run` take it from there. What takes seconds to import is imported
when a density is loaded.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eval.images.sources import LoadedDensity
    from eval.run import MeasuredRun


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set of images that is compared with real ones."""

    name: str
    """What options, protocols and file names call it."""
    title: str
    """What the report calls it."""
    help: str
    """What it is, for the command's help and among a result's remarks."""


@dataclass(frozen=True, kw_only=True)
class Density(Source):
    """Images generated from the latents of a density."""

    latents: str
    """How an image is generated, for the protocol."""
    load: "Callable[[MeasuredRun, int, str], LoadedDensity]"
    """A run, and components and covariance type of its mixture. Raises InputError where what it needs is not fitted."""
    of_mixture: bool = False
    """True where it depends on which mixture was fitted."""


def _mixture(run: "MeasuredRun", components: int, covariance: str) -> "LoadedDensity":
    from eval.images.sources import LoadedDensity, mixture_sampler
    from eval.run import mixture_digest

    mixture = run.mixture(components, covariance)

    def log_density(device: "torch.device") -> "Callable[[Tensor], Tensor]":
        there = mixture if device.type == "cpu" else run.mixture(components, covariance, device)
        return there.score_samples

    return LoadedDensity(
        sampler=mixture_sampler(mixture.parameters),
        log_density=cache(log_density),
        digest=mixture_digest(mixture),
    )


def _transported(run: "MeasuredRun", components: int, covariance: str) -> "LoadedDensity":
    from eval.images.sources import LoadedDensity, mixture_sampler
    from eval.transport import load_transport

    transport = load_transport(run, components, covariance)
    sampler = mixture_sampler(transport.mixture.parameters)
    return LoadedDensity(sampler=sampler, finish=transport.apply, digest=transport.digest)


def _prior(run: "MeasuredRun", components: int, covariance: str) -> "LoadedDensity":
    from eval.images.sources import LoadedDensity, prior_sampler
    from trainer.objectives.gaussian import log_prior

    return LoadedDensity(sampler=prior_sampler(run.model.latent_dim), log_density=lambda device: log_prior)


def _flow(run: "MeasuredRun", components: int, covariance: str) -> "LoadedDensity":
    from eval.images.blocks import BLOCK
    from eval.images.sources import LoadedDensity
    from trainer.flow import load_flow
    from trainer.run_folder.checkpoint import fingerprint

    flow = load_flow(run.folder, run.weights)
    return LoadedDensity(
        sampler=lambda generator: flow.sample(BLOCK, generator),
        # A copy, as samples are drawn on the CPU.
        log_density=cache(lambda device: copy.deepcopy(flow).to(device).score_samples),
        digest=f"{fingerprint(flow.state_dict()):016x}",
    )


DENSITIES: dict[str, Density] = {
    density.name: density
    for density in (
        Density(
            name="q_hat",
            title="samples from q̂",
            help="samples from the fitted mixture",
            latents="z ~ q_hat, image g(z)",
            load=_mixture,
            of_mixture=True,
        ),
        Density(
            name="transported",
            title="samples from q̂, transported",
            help="the same, transported to the distribution of real images, see python -m eval transport",
            latents="z ~ q_hat, image A(g(z))",
            load=_transported,
            of_mixture=True,
        ),
        Density(
            name="prior",
            title="samples from the prior",
            help="samples from N(0, I)",
            latents="z ~ N(0, I), image g(z)",
            load=_prior,
        ),
        Density(
            name="flow",
            title="samples from the flow",
            help="samples from the flow fitted to the codes, see python -m trainer.flow",
            latents="z ~ flow, image g(z)",
            load=_flow,
        ),
    )
}
"""By name, in the order of the command's help."""

SOURCES: dict[str, Source] = DENSITIES | {
    source.name: source
    for source in (
        Source(
            name="reconstruction", title="reconstructions", help="reconstructions of the reference split's own images"
        ),
        Source(name="train", title="real training images", help="training images, the first of a seeded shuffle"),
        Source(
            name="half",
            title="real images, half against half",
            help="one half of the reference split against the other: what no model can be expected to beat",
        ),
    )
}
"""Everything that is compared with real images: images of the densities, and those that need none."""
