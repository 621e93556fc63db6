"""A user's own images as a run takes them, and the density of its latents."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_shards.io.errors import InputError
from data_shards.io.text import in_utf8
from eval.image_sets.by_name import open_set
from eval.image_sets.image_set import ImageSet
from eval.image_sets.recipe import recipe_of
from eval.image_sets.run_samples import Sampling
from eval.images.densities import BY_OPTION, DENSITIES
from eval.measurements.posterior_samples import Prior
from eval.run import MeasuredRun
from trainer.process_group import Ranks


def own_images(run: MeasuredRun, word: str, ranks: Ranks, *, n: int | None, seed: int) -> ImageSet:
    """The set that a word names, made into images of the run's shape. Raises InputError where there is none."""
    recipe = recipe_of(run.manifest.pixels)
    return open_set(word, ranks, n=n, sampling=Sampling(seed=seed), recipe=recipe)


@dataclass(frozen=True, kw_only=True)
class ChosenDensity:
    """A density of latents in the place of the prior."""

    log_density: Prior
    """Latents (N, D) to (N,) in nats."""
    identity: Mapping[str, str]
    """What it is, as JSON."""


def latent_density(run: MeasuredRun, name: str, components: int | None, covariance: str, ranks: Ranks) -> ChosenDensity:
    """The density of latents by its name, see `eval.images.densities`. Raises InputError where it has none."""
    density = DENSITIES[BY_OPTION.get(name, name)]
    chosen = run.components(covariance, components) if density.of_mixture else 0
    loaded = density.load(run, chosen, covariance)
    if loaded.log_density is None:
        raise InputError(f"{name!r} has no density; use mixture, prior or flow", parameter="density")
    return ChosenDensity(
        log_density=loaded.log_density(ranks.device), identity={"density": density.name, "digest": loaded.digest}
    )


def names_of(images: ImageSet) -> list[str]:
    """What each image is called in a table, in characters that any table takes."""
    names = images.names or [str(number) for number in range(images.n)]
    # A carriage return is not quoted by csv, and taken for the end of a line.
    return [in_utf8(name).replace("\r", "\\r") for name in names]
