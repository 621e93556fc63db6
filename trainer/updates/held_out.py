"""The held-out ELBO and what goes with it: the one measure that decides when a stage ends."""

import math
from dataclasses import dataclass

import torch

from trainer.config.sections import DataConfig
from trainer.networks.model import SigmaVAE
from trainer.noise import global_noise, rank_slice
from trainer.objectives import gaussian
from trainer.process_group import Ranks
from trainer.updates.source_order import in_source_order

# A latent dimension is active where its posterior mean varies over images by more than this (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Means over held-out images, in nats per image unless said otherwise."""

    elbo: float
    log_likelihood: float
    kl: float
    closed_form_sigma2: float
    """Mean square error a pixel, equation 9 on these images."""
    elbo_at_closed_form: float
    """The ELBO with that one variance: comparable between stages and between updates of sigma."""
    active_dimensions: int


@torch.no_grad()
def held_out(model: SigmaVAE, data: DataConfig, seed: int, ranks: Ranks) -> HeldOut:
    """Measures the first images of the held-out split; the same images and noise at every check, on any world size."""
    training = model.training
    model.eval()
    width = model.latent_dim
    # images, log-likelihood, KL, square error; then sums of the means and of their squares
    sums = torch.zeros(4 + 2 * width, dtype=torch.float64, device=ranks.device)
    for batch in in_source_order(data, data.valid_split, ranks):
        if batch.start >= data.valid_images:
            break
        rows = rank_slice(batch.count, ranks.rank, ranks.world_size)
        noise = global_noise(seed, "held out", batch.start, batch.count, width)[rows].to(ranks.device)
        # The last batch is cut to the number of images asked for.
        kept = max(0, min(len(batch.image), data.valid_images - batch.start - rows.start))
        x = batch.image[:kept].to(ranks.device).float() / 255
        mean, std = model.encode(x)
        output = model.decode(gaussian.reparameterise(mean, std, noise[:kept]))
        values = (
            gaussian.log_likelihood(x, output.mean, output.variance),
            gaussian.kl_to_prior(mean, std),
            (x - output.mean).square(),
        )
        sums[0] += kept
        sums[1:4] += torch.stack([value.double().sum() for value in values])
        sums[4:] += torch.cat([mean.double().sum(0), mean.double().square().sum(0)])
    model.train(training)
    count, log_likelihood, kl, square_error, *moments = ranks.sum_(sums).tolist()
    if count == 0:
        raise ValueError(f"split {data.valid_split!r} holds no image")
    first, second = (torch.tensor(moments, dtype=torch.float64) / count).chunk(2)
    sigma2 = square_error / count / model.pixels
    at_closed_form = gaussian.variance_floor_cap(model.pixels, sigma2) - 0.5 * model.pixels if sigma2 > 0 else math.inf
    return HeldOut(
        elbo=(log_likelihood - kl) / count,
        log_likelihood=log_likelihood / count,
        kl=kl / count,
        closed_form_sigma2=sigma2,
        elbo_at_closed_form=at_closed_form - kl / count,
        active_dimensions=int((second - first.square() > ACTIVE_VARIANCE).sum()),
    )
