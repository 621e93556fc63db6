"""The paper's pictures that trained weights draw: densities over two latents, samples, variance maps."""

from pathlib import Path

import torch

from eval.images.sources import block_latents, prior_sampler
from eval.images.stored_transport import load_transport
from eval.report import gallery
from eval.report.figures import density_figure
from eval.report.model_sections import SAMPLES, evenly_spaced_images, mixture_latents, spread_out
from eval.run import MeasuredRun
from trainer.process_group import single
from trainer.run_folder import latents


def picture_path(run: Path, name: str) -> Path:
    """Where a drawing of a run lies; its name contains the run's, so that those of many runs share a folder."""
    return run / "samples" / f"{run.name}-{name}.png"


@torch.inference_mode()
def draw(name: str, run: MeasuredRun, components: int) -> bytes:
    """A picture as a PNG file; no image in it is chosen by eye.

    name: density (table 1: log-densities of aggregate posterior, mixture and prior, for two latents); figure2 (mean
    images of z ~ q_hat above those of z ~ p); figure3 (test images, reconstructions, errors, predicted deviations);
    figure4 (samples from q_hat, below each row its predicted deviations); transported (mean images of z ~ q_hat above
    the same, transported). components: of the run's fitted mixture q_hat.
    """
    model = run.model
    device = next(model.parameters()).device
    mixture = run.mixture(components, "full")
    if name == "density":
        codes = latents.read(run.folder, run.config.data.train_split, weights=run.weights)
        return density_figure(codes, mixture.score_samples)
    z = mixture_latents(mixture)[:SAMPLES].to(device)
    if name in ("figure3", "figure4"):
        few = spread_out(evenly_spaced_images(run, "test", single(device)))
        scale = gallery.map_scale(model, few, z)  # of both figures
        return gallery.reconstructions(model, few, scale) if name == "figure3" else gallery.samples(model, z, scale)
    upper = model.decode(z).mean
    if name == "figure2":
        prior = block_latents(prior_sampler(model.latent_dim), seed=0, block=0)[:SAMPLES]
        lower = model.decode(prior.to(device)).mean
    else:
        lower = load_transport(run, components, "full").apply(z, upper)
    return gallery.images(torch.cat([upper, lower]))
