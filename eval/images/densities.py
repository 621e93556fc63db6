"""The densities that latents are drawn from, and all sets of images that are compared with real ones, by name.

A new density is a file in `eval/images` with a function such as `eval.images.sources.flow_density`, and an entry with
its name in DENSITIES: the command fid, the protocols, the report and `open_run` take it from there. What takes seconds
to import is imported when a density is loaded.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from eval.images.sources import LoadedDensity
    from eval.run import MeasuredRun


@dataclass(frozen=True, kw_only=True)
class ComparedSource:
    """A set of images that is compared with real ones."""

    name: str
    """What options, protocols and file names call it."""
    title: str
    """What the report calls it."""
    help: str
    """What it is, for the command's help and among a result's remarks."""


@dataclass(frozen=True, kw_only=True)
class Density(ComparedSource):
    """Images generated from the latents of a density."""

    latents: str
    """How an image is generated, for the protocol."""
    loader: str
    """module:function of a run, and components and covariance type of its mixture, to a `LoadedDensity`."""
    of_mixture: bool = False
    """True where it depends on which mixture was fitted."""

    def load(self, run: "MeasuredRun", components: int, covariance: str) -> "LoadedDensity":
        """The density that was fitted to a run. Raises InputError where what it needs is not fitted."""
        module, _, function = self.loader.partition(":")
        return cast("LoadedDensity", getattr(import_module(module), function)(run, components, covariance))


DENSITIES: dict[str, Density] = {
    density.name: density
    for density in (
        Density(
            name="q_hat",
            title="samples from q̂",
            help="samples from the fitted mixture",
            latents="z ~ q_hat, image g(z)",
            loader="eval.images.sources:mixture_density",
            of_mixture=True,
        ),
        Density(
            name="transported",
            title="samples from q̂, transported",
            help="the same, transported to the distribution of real images, see python -m eval transport",
            latents="z ~ q_hat, image A(g(z))",
            loader="eval.images.stored_transport:transported_density",
            of_mixture=True,
        ),
        Density(
            name="prior",
            title="samples from the prior",
            help="samples from N(0, I)",
            latents="z ~ N(0, I), image g(z)",
            loader="eval.images.sources:prior_density",
        ),
        Density(
            name="flow",
            title="samples from the flow",
            help="samples from the flow fitted to the codes, see python -m trainer.flow",
            latents="z ~ flow, image g(z)",
            loader="eval.images.sources:flow_density",
        ),
    )
}
"""By name, in the order of the command's help."""

BY_OPTION: dict[str, str] = {"mixture" if name == "q_hat" else name: name for name in DENSITIES}
"""What `open_run` and the commands that generate images call them."""

SOURCES: dict[str, ComparedSource] = DENSITIES | {
    source.name: source
    for source in (
        ComparedSource(
            name="reconstruction", title="reconstructions", help="reconstructions of the reference split's own images"
        ),
        ComparedSource(
            name="train", title="real training images", help="training images, the first of a seeded shuffle"
        ),
        ComparedSource(
            name="half",
            title="real images, half against half",
            help="one half of the reference split against the other: what no model can be expected to beat",
        ),
    )
}
"""Everything that is compared with real images: images of the densities, and those that need none."""
