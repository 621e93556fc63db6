"""What each method minimises, over one process's part of a global batch."""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.config.methods import METHODS
from trainer.config.sections import ObjectiveConfig, VarianceConfig
from trainer.full_precision import full_precision
from trainer.networks.model import SigmaVAE
from trainer.networks.norm import sum_over_ranks
from trainer.objectives import families, gaussian


class LocalBatch(NamedTuple):
    """One process's rows of a global batch: b rows here of n in the whole batch."""

    images: Tensor
    """(b, C, H, W), uint8."""
    noise: Tensor
    """(b, D), standard normal, for z of these rows."""
    prior: Tensor
    """(n, D), draws of the prior for a penalty that needs them; (0, D) otherwise."""
    start: int
    """Row of the global batch that images[0] is."""
    rows: int
    """n, rows of the global batch."""
    kl_weight: Tensor
    """(), 0 to 1, on the device; not a number of the host, for each value of which networks would be compiled anew."""


class Terms(NamedTuple):
    """Sums over the rows of one local batch, and the penalty of the whole batch."""

    loss: Tensor
    """(), what is differentiated: the sum over the images here, and all of a penalty on the whole batch; nats."""
    penalty: Tensor
    """(), the part of `loss` that is a penalty on the whole batch, and so in the loss of every local batch; nats."""
    log_likelihood: Tensor
    """(), sum of log p(x|z); nats."""
    kl: Tensor
    """(), sum of KL[q(z|x) || p(z)]; nats."""
    square_error: Tensor
    """(), sum over images and pixels of (g_k(z) - x_k)^2."""

    def sums(self, local_batches: int, signals: Tensor) -> Tensor:
        """(6,) float64: loss, log-likelihood, KL, square error, and two signals as they are.

        Added over all `local_batches` they are the batch's. signals: (2,) float32.
        """
        terms = (self.penalty, self.loss, self.log_likelihood, self.kl, self.square_error)
        sums = torch.stack([*terms, *signals.unbind()]).detach().double()
        if local_batches > 1:
            sums[1] -= sums[0] * (1 - 1 / local_batches)
        return sums[1:]


class BatchPenalty(ABC):
    """A penalty that couples all rows of a global batch. Every process computes it over the rows of all processes."""

    draws_prior = False
    """Whether the penalty compares the latents with draws of the prior."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    @abstractmethod
    def rows(self, mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
        """What the penalty needs of each image, (b, W), of its posterior and one sample z, each (b, D)."""

    @abstractmethod
    def __call__(self, rows: Tensor, prior: Tensor) -> Tensor:
        """The penalty in nats per image, (). rows: (n, W), all of the global batch; prior: (n, D) draws or (0, D)."""

    def loss(self, negative_elbo: Tensor, square_error: Tensor) -> Tensor:
        """What is minimised beside the penalty, (), from the sums over images of equation 8 and of the square error."""
        return negative_elbo


def batch_penalty(config: ObjectiveConfig) -> BatchPenalty | None:
    """The penalty of a method; None where it has none."""
    path = METHODS[config.name].penalty
    if not path:
        return None
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)(config)


def initial_variance(objective: ObjectiveConfig, variance: VarianceConfig) -> float:
    """sigma^2 at the start of a run; a method that does not learn it keeps it."""
    method = METHODS[objective.name]
    if method.learns_variance:
        return variance.initial
    fixed = objective.sigma2 if objective.sigma2 is not None else method.variance
    assert fixed is not None, "the configuration refuses `fixed` without sigma2"
    return fixed


def learns_variance_by_gradient(objective: ObjectiveConfig, variance: VarianceConfig) -> bool:
    """True where log sigma^2 is a parameter of the optimiser in stage 1."""
    return METHODS[objective.name].learns_variance and variance.update == "adam"


def beta_nll(x: Tensor, mean: Tensor, variance: Tensor, dataset_variance: Tensor, beta: float) -> Tensor:
    """Log-likelihood whose pixels have the constant weight (variance / dataset_variance)^beta (after Seitzer et al.).

    Seitzer et al. (2022) weight by variance^beta, for a regression without a prior. Relative to sigma_dataset^2, a
    pixel of that variance keeps its weight, and with it the balance with the KL term: under beta = 1 the mean image has
    the gradients of equation 7 with sigma_dataset^2, those of stage 1.

    x, mean, variance: (B, C, H, W); dataset_variance: (1,). Returns (B,); beta = 0 is the log-likelihood itself.
    """
    nats = -0.5 * ((x - mean).square() / variance + variance.log() + gaussian.LOG_2PI)
    return (nats * (variance.detach() / dataset_variance).pow(beta)).sum((1, 2, 3))


def rows_of_all_ranks(own: Tensor, batch: LocalBatch) -> Tensor:
    """(n, W) rows of the global batch on every process, without gradient. own: (b, W), the rows of `batch`."""
    whole = own.new_zeros(batch.rows, own.shape[1])
    whole[batch.start : batch.start + len(own)] = own.detach()
    # The rows of other processes are zero here, so the sum over processes is exact.
    return sum_over_ranks(whole)


class Objective(nn.Module):
    """A model and what is minimised over it; the module that an engine replicates or shards."""

    def __init__(self, model: SigmaVAE, objective: ObjectiveConfig, variance: VarianceConfig) -> None:
        super().__init__()
        self.model, self.beta = model, variance.beta_nll
        self.penalty = batch_penalty(objective)

    def forward(self, batch: LocalBatch, whole: Tensor | None) -> Terms:
        """The terms of one local batch.

        whole: (n, W) rows of the global batch for the penalty, without gradient, where `batch` is not all of this
        process's rows; None gathers them here. Those of `batch` are replaced by ones with gradient.
        """
        x = batch.images.float() / 255  # (b, C, H, W)
        mean, std = self.model.encode(x)
        z = gaussian.reparameterise(mean, std, batch.noise)  # (b, D)
        output = self.model.decode(z)
        log_likelihood = families.log_likelihood(x, output)  # (b,)
        square_error = (x - output.mean).square().sum()
        kl = gaussian.kl_to_prior(mean, std)  # (b,)
        # Equation 8; with a variance head the likelihood is that of equation 10 in place of 7.
        if self.beta > 0 and self.model.per_pixel:
            dataset_variance = self.model.log_variance.exp()  # (1,), a buffer in stage 2
            nats = beta_nll(x, output.mean, output.variance, dataset_variance, self.beta)
            loss = (batch.kl_weight * kl - nats).sum()
        else:
            loss = (batch.kl_weight * kl - log_likelihood).sum()
        penalty = torch.zeros_like(loss)
        if self.penalty is not None:
            loss = self.penalty.loss(loss, square_error)
            own = self.penalty.rows(mean, std, z)
            whole = rows_of_all_ranks(own, batch) if whole is None else whole
            rows = torch.cat([whole[: batch.start], own, whole[batch.start + len(own) :]])  # (n, W)
            penalty = batch.rows * self._exact_penalty(rows, batch.prior)
        return Terms(loss + penalty, penalty, log_likelihood.sum(), kl.sum(), square_error)

    @torch.compiler.disable  # a compiled graph would not see the settings of the process
    def _exact_penalty(self, rows: Tensor, prior: Tensor) -> Tensor:
        """A penalty is a small difference of products, of which bfloat16 would leave the gradient two digits."""
        assert self.penalty is not None
        with full_precision():
            return self.penalty(rows, prior)

    def penalty_rows(self, batch: LocalBatch) -> Tensor:
        """(b, W), what the penalty needs of the images here."""
        assert self.penalty is not None
        mean, std = self.model.encode(batch.images.float() / 255)
        return self.penalty.rows(mean, std, mean + std * batch.noise)
