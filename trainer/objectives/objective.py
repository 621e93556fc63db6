"""What each method minimises, over one process's share of a global batch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.config.sections import ObjectiveConfig, VarianceConfig
from trainer.networks.model import SigmaVAE
from trainer.objectives import gaussian, penalties

# Fixed variances of the likelihood that have names: PAPER.md's baselines.
NAMED_VARIANCES = {"vae": 0.5, "beta_vae": 1.0, "dip_vae_i": 0.5, "dip_vae_ii": 0.5, "wae_mmd": 0.5}
# Weight of the summed square error in the WAE reference, against which its lambda is given.
WAE_RECONSTRUCTION_WEIGHT = 0.05


class Share(NamedTuple):
    """One process's rows of a global batch. With b rows here and n in the whole batch:"""

    images: Tensor
    """(b, C, H, W), uint8."""
    noise: Tensor
    """(n, D), standard normal, for z of the whole batch."""
    prior: Tensor
    """(n, D), standard normal, draws of the prior for WAE-MMD; (0, D) for other methods."""
    start: int
    """Row of the global batch that images[0] is."""
    rows: int
    """Rows of the global batch."""


class Terms(NamedTuple):
    """Sums over the rows of one share, and the penalty of the whole batch."""

    def sums(self, shares: int) -> Tensor:
        """(4,) float64: loss, log-likelihood, KL, square error; those of all `shares` add up to the batch's."""
        loss = self.loss.double() - self.penalty.double() * (1 - 1 / shares)
        return torch.stack([loss, self.log_likelihood.double(), self.kl.double(), self.square_error.double()]).detach()

    loss: Tensor
    """(), what this share's gradients are those of: its sum over images, and all of a penalty on the whole batch."""
    penalty: Tensor
    """(), the part of `loss` that is a penalty on the whole batch and thus in every share's loss; nats."""
    log_likelihood: Tensor
    """(), sum of log p(x|z); nats."""
    kl: Tensor
    """(), sum of KL[q(z|x) || p(z)]; nats."""
    square_error: Tensor
    """(), sum over images and pixels of (g_k(z) - x_k)^2."""


def initial_variance(objective: ObjectiveConfig, variance: VarianceConfig) -> float:
    """sigma^2 that a run starts with, and keeps where its method does not learn it."""
    if objective.name == "sigma_vae":
        return variance.initial
    return objective.sigma2 if objective.sigma2 is not None else NAMED_VARIANCES[objective.name]


def learns_variance_by_gradient(objective: ObjectiveConfig, variance: VarianceConfig) -> bool:
    """True where log sigma^2 is a parameter of the optimiser in stage 1."""
    return objective.name == "sigma_vae" and variance.update == "adam"


def beta_nll(x: Tensor, mean: Tensor, variance: Tensor, dataset_variance: Tensor, beta: float) -> Tensor:
    """Log-likelihood whose pixels weigh (variance / dataset_variance)^beta, held constant (after Seitzer et al. 2022).

    Seitzer et al. weigh by variance^beta, for a regression without a prior. Measured against sigma_dataset^2, a pixel
    of that variance keeps its weight, and with it the balance with the KL term: under beta = 1 the mean image has the
    gradients of equation 7 with sigma_dataset^2, those of stage 1.

    x, mean, variance: (B, C, H, W); dataset_variance: (1,). Returns (B,); beta = 0 is the log-likelihood itself.
    """
    nats = -0.5 * ((x - mean).square() / variance + variance.log() + gaussian.LOG_2PI)
    return (nats * (variance.detach() / dataset_variance).pow(beta)).sum((1, 2, 3))


class Objective(nn.Module):
    """A model and what is minimised over it; the module that an engine replicates or shards."""

    def __init__(self, model: SigmaVAE, objective: ObjectiveConfig, variance: VarianceConfig) -> None:
        super().__init__()
        self.model, self.config, self.beta = model, objective, variance.beta_nll

    @property
    def needs_whole_batch(self) -> bool:
        """True where a penalty couples all rows of the global batch."""
        return self.config.name in ("dip_vae_i", "dip_vae_ii", "wae_mmd")

    def forward(self, share: Share, kl_weight: float, whole: Tensor | None) -> Terms:
        """The terms of one share.

        kl_weight: 0 to 1. whole: (n, 2 D) rows [mean or z, std] of the global batch where `needs_whole_batch`,
        without gradient; this share's rows are put in with theirs.
        """
        x = share.images.float() / 255  # (b, C, H, W)
        mean, std = self.model.encode(x)
        z = gaussian.reparameterise(mean, std, share.noise[share.start : share.start + len(x)])  # (b, D)
        output = self.model.decode(z)
        log_likelihood = gaussian.log_likelihood(x, output.mean, output.variance)  # (b,)
        square_error = (x - output.mean).square().sum()
        kl = gaussian.kl_to_prior(mean, std)  # (b,)
        # Equation 8, and equation 10 in place of 7 once the decoder has a variance head.
        if self.beta > 0 and self.model.per_pixel:
            dataset_variance = self.model.log_variance.exp()  # (1,), a buffer by now
            nats = beta_nll(x, output.mean, output.variance, dataset_variance, self.beta)
            loss = (kl_weight * kl - nats).sum()
        else:
            loss = (kl_weight * kl - log_likelihood).sum()
        if self.config.name == "wae_mmd":
            loss = WAE_RECONSTRUCTION_WEIGHT * square_error
        penalty = torch.zeros_like(loss)
        if whole is not None:
            penalty = share.rows * self._penalty(self._with_own(whole, mean, std, z, share.start), share)
        return Terms(loss + penalty, penalty, log_likelihood.sum(), kl.sum(), square_error)

    def rows(self, share: Share) -> Tensor:
        """[mean or z, std] of a share, (b, 2 D): what the penalties look at."""
        mean, std = self.model.encode(share.images.float() / 255)
        return self._rows(mean, std, mean + std * share.noise[share.start : share.start + len(mean)])

    def _rows(self, mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
        return torch.cat([z if self.config.name == "wae_mmd" else mean, std], dim=1)

    def _with_own(self, whole: Tensor, mean: Tensor, std: Tensor, z: Tensor, start: int) -> Tensor:
        own = self._rows(mean, std, z)
        return torch.cat([whole[:start], own, whole[start + len(own) :]])  # (n, 2 D)

    def _penalty(self, whole: Tensor, share: Share) -> Tensor:
        first, std = whole.chunk(2, dim=1)  # (n, D) each
        if self.config.name == "wae_mmd":
            # One row has no unbiased within-batch term: such a batch trains reconstruction alone.
            return self.config.wae_weight * (penalties.mmd(first, share.prior) if len(first) > 1 else first.sum() * 0)
        second_kind, weight = self.config.name == "dip_vae_ii", self.config.dip_off_diagonal
        return penalties.dip_penalty(
            first, std, second_kind=second_kind, off_diagonal=weight, diagonal=weight if second_kind else 10 * weight
        )
