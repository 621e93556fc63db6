"""A user's own images as a run takes them, and the density of its latents."""

from data_shards.io.errors import InputError
from eval.image_sets.by_name import open_set
from eval.image_sets.image_set import ImageSet
from eval.image_sets.recipe import recipe_of
from eval.image_sets.run_samples import Sampling
from eval.images.densities import DENSITIES, SPOKEN
from eval.measurements.likelihood import Prior
from eval.run import MeasuredRun
from trainer.process_group import Ranks


def own_images(run: MeasuredRun, word: str, ranks: Ranks, *, n: int | None, seed: int) -> ImageSet:
    """The set that a word names, made into images of the run's shape. Raises InputError where there is none."""
    recipe = recipe_of(run.manifest.pixels)
    return open_set(word, ranks, n=n, sampling=Sampling(seed=seed), recipe=recipe)


def log_density(run: MeasuredRun, name: str, components: int | None, covariance: str, ranks: Ranks) -> Prior:
    """The log-density of latents by its name, see `eval.images.densities`. Raises InputError where it has none."""
    density = DENSITIES[SPOKEN.get(name, name)]
    chosen = run.components(covariance, components) if density.of_mixture else 0
    found = density.load(run, chosen, covariance).log_density
    if found is None:
        raise InputError(f"{name!r} has no density; use mixture, prior or flow", parameter="density")
    return found(ranks.device)
