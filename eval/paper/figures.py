"""The paper's pictures that trained weights draw: densities over two latents, samples, variance maps."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from eval.images.sources import block_latents, prior_sampler
from eval.report import gallery
from eval.report.figures import density_png
from eval.report.gallery import grid, png, to_rgb
from eval.report.model_sections import SAMPLES, held_out_images, mixture_latents
from eval.run import MeasuredRun
from eval.transport import load_transport
from trainer.process_group import single
from trainer.run_folder import latents


def picture_path(run: Path, name: str) -> Path:
    """Where a drawing of a run lies; its name contains the run's, so that those of many runs share a folder."""
    return run / "samples" / f"{run.name}-{name}.png"


def density(run: MeasuredRun, components: int) -> bytes:
    """Table 1: log-densities of the aggregate posterior, of its mixture and of the prior, for two latents."""
    codes = latents.read(run.folder, run.config.data.train_split, weights=run.weights)
    return density_png(codes, run.mixture(components, "full").score_samples)


def both_samples(run: MeasuredRun, components: int) -> bytes:
    """Figure 2b: mean images of z ~ q_hat in the upper rows and of z ~ p in as many below, not chosen by eye."""
    prior = block_latents(prior_sampler(run.model.latent_dim), seed=0, block=0)[:SAMPLES]
    return _rows(run, run.model.decode(_samples(run, components)).mean, run.model.decode(_placed(run, prior)).mean)


def transported_samples(run: MeasuredRun, components: int) -> bytes:
    """Mean images of z ~ q_hat in the upper rows and the same, transported, in as many below."""
    z = _samples(run, components)
    means = run.model.decode(z).mean
    return _rows(run, means, load_transport(run, components, "full").apply(z, means).clamp(0, 1))


def reconstruction_maps(run: MeasuredRun, components: int) -> bytes:
    """Figure 3: test images, their reconstructions, the errors and the predicted deviations."""
    images = held_out_images(run, "test", single(next(run.model.parameters()).device))
    few = images[:: max(1, len(images) // gallery.COLUMNS)][: gallery.COLUMNS]
    return gallery.reconstructions(run.model, few)[0]


def sample_maps(run: MeasuredRun, components: int) -> bytes:
    """Figure 4: samples from q_hat, below each row its predicted deviations."""
    (picture,), _ = gallery.samples(run.model, _samples(run, components))
    return picture


def _samples(run: MeasuredRun, components: int) -> Tensor:
    return _placed(run, mixture_latents(run.mixture(components, "full"))[:SAMPLES])


def _placed(run: MeasuredRun, z: Tensor) -> Tensor:
    return z.to(next(run.model.parameters()).device)


def _rows(run: MeasuredRun, *sets: Tensor) -> bytes:
    rows = [row for images in sets for row in to_rgb(images).split(gallery.COLUMNS)]
    return png(grid(rows, enlarge=gallery.enlargement(run.model.image_shape[-1])))


FIGURES: Mapping[str, Callable[[MeasuredRun, int], bytes]] = {
    "density": density,
    "figure2": both_samples,
    "figure3": reconstruction_maps,
    "figure4": sample_maps,
    "transported": transported_samples,
}
"""By name. Each takes a run and the number of components of its fitted mixture, and returns a PNG file."""


def draw(name: str, run: MeasuredRun, components: int) -> bytes:
    """The figure of that name as a PNG file."""
    with torch.inference_mode():
        return FIGURES[name](run, components)
