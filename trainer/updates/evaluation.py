"""Passes over a split between two updates: the held-out ELBO that ends a stage, and equation 9 over all images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.config.methods import METHODS
from trainer.networks.model import Likelihood, Posterior, SigmaVAE
from trainer.noise import global_noise
from trainer.objectives import families, gaussian
from trainer.process_group import Ranks
from trainer.updates.streams import Passes

# A latent dimension is active where its posterior mean varies over images by more than this (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Means over held-out images, in nats per image unless said otherwise."""

    elbo: float
    log_likelihood: float
    kl: float
    closed_form_sigma2: float
    """Mean square error per pixel, equation 9 on these images."""
    elbo_at_closed_form: float
    """The ELBO with that one variance: comparable between stages and between updates of sigma."""
    active_dimensions: int
    mean_image_variance: float
    """Mean over pixels of the images' variance about their mean image, in squared pixel units; NaN for one image."""
    elbo_of_mean_image: float
    """The ELBO of their mean image with that one variance: what a model has that knows nothing of an image."""


def compared(measured: HeldOut, objective: str) -> HeldOut:
    """`measured` as weights are compared by it: without the KL term where the objective of this name has none."""
    if METHODS[objective].has_kl:
        return measured
    return replace(
        measured, elbo=measured.log_likelihood, elbo_at_closed_form=measured.elbo_at_closed_form + measured.kl
    )


def unsound_number(measured: HeldOut) -> str | None:
    """The name of a number that is not finite though training needs it; None where all are."""
    needed = ("elbo", "log_likelihood", "kl", "closed_form_sigma2")
    return next((name for name in needed if not math.isfinite(getattr(measured, name))), None)


@torch.no_grad()
def held_out(model: SigmaVAE, passes: Passes, seed: int, ranks: Ranks) -> HeldOut:
    """Evaluates the first `data.valid_images` images of the held-out split.

    The images and their noise are the same at every call and on any number of processes. Raises what ends the pass.
    """
    data = passes.data
    width, d = model.latent_dim, model.pixels
    # images, log-likelihood, KL, square error, squares of pixels; then sums of the means, of their squares, of pixels
    sums = torch.zeros(5 + 2 * width + d, dtype=torch.float64, device=ranks.device)
    for x, (mean, std), output in _reconstructions(
        model, passes, data.valid_split, images=data.valid_images, purpose="held out", seed=seed, ranks=ranks
    ):
        values = (
            families.log_likelihood(x, output),
            gaussian.kl_to_prior(mean, std),
            (x - output.mean).square(),
            x.double().square(),
        )
        sums[0] += len(x)
        sums[1:5] += torch.stack([value.double().sum() for value in values])
        sums[5:] += torch.cat([mean.double().sum(0), mean.double().square().sum(0), x.double().sum(0).flatten()])
    sums = ranks.sum_(sums).cpu()
    count, log_likelihood, kl, square_error, squares = sums[:5].tolist()
    if count == 0:
        raise ValueError(f"split {data.valid_split!r} has no images")
    first, second, mean_image = (sums[5:] / count).split([width, width, d])
    sigma2 = square_error / count / d
    spread = max(0.0, squares / count - mean_image.square().sum().item()) / d
    # As for a sample: the mean image is of the same few images.
    mean_image_variance = spread * count / (count - 1) if count > 1 else math.nan
    return HeldOut(
        elbo=(log_likelihood - kl) / count,
        log_likelihood=log_likelihood / count,
        kl=kl / count,
        closed_form_sigma2=sigma2,
        elbo_at_closed_form=_at_closed_form(d, sigma2) - kl / count,
        active_dimensions=int((second - first.square() > ACTIVE_VARIANCE).sum()),
        mean_image_variance=mean_image_variance,
        elbo_of_mean_image=_at_closed_form(d, mean_image_variance),
    )


def _at_closed_form(d: int, variance: float) -> float:
    """log p(x|z) in nats per image of d pixels whose mean square error equals the one variance."""
    return gaussian.variance_floor_cap(d, variance) - 0.5 * d if variance != 0 else math.inf


# Equation 9 over the whole training split, with one posterior sample per image.
@torch.no_grad()
def exact_variance(model: SigmaVAE, passes: Passes, seed: int, ranks: Ranks) -> float:
    """sigma*^2 = mean over images, pixels and samples of (g_k(z) - x_k)^2, the same on any number of processes."""
    sums = torch.zeros(2, dtype=torch.float64, device=ranks.device)  # square error, pixel values
    for x, _, output in _reconstructions(
        model, passes, passes.data.train_split, images=None, purpose="exact variance", seed=seed, ranks=ranks
    ):
        sums += torch.stack([(x - output.mean).square().double().sum(), sums.new_tensor(float(x.numel()))])
    square_error, values = ranks.sum_(sums).tolist()
    return square_error / values


def _reconstructions(
    model: SigmaVAE, passes: Passes, split: str, *, images: int | None, purpose: str, seed: int, ranks: Ranks
) -> Iterator[tuple[Tensor, Posterior, Likelihood]]:
    """This process's images in source order, in batches, with q(z|x) and p(x|z) of one sample z, in evaluation mode.

    images: how many of the split, from its start; None for all. purpose: names the noise of the samples.
    """
    training = model.training
    model.eval()
    try:
        for batch in passes.over(split, ranks):
            rows = ranks.partition(batch.count)
            noise = global_noise(seed, purpose, batch.start, batch.count, model.latent_dim)[rows.start : rows.stop]
            kept = len(batch.image)
            if images is not None:  # the last batch is cut
                kept = max(0, min(kept, images - batch.start - rows.start))
            x = batch.image[:kept].to(ranks.device).float() / 255
            posterior = model.encode(x)
            z = gaussian.reparameterise(posterior.mean, posterior.std, noise[:kept].to(ranks.device))
            yield x, posterior, model.decode(z)
            if images is not None and batch.start + batch.count >= images:
                break  # before another batch is waited for, which the other processes may not do
    finally:
        model.train(training)
