"""How far the fitted mixture is from the prior: KL(q_hat || p) by Monte Carlo, as the paper's Table 1 gives it."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from eval.results import LatentDivergence
from trainer.mixture.density import MixtureDensity
from trainer.noise import seeded_generator
from trainer.objectives.gaussian import log_prior
from trainer.process_group import Ranks

KL_SAMPLES, KL_RUNS = 10_000, 10


def divergence(mixture: MixtureDensity, seed: int, ranks: Ranks) -> LatentDivergence:
    """KL(q_hat || p) with its deviation over runs, the same on every process."""
    estimates = latent_kl(mixture, log_prior, ranks, num_samples=KL_SAMPLES, runs=KL_RUNS, seed=seed)
    return LatentDivergence(
        value=estimates.mean().item(),
        standard_deviation=estimates.std().item(),
        samples=KL_SAMPLES,
        runs=KL_RUNS,
        unit="nats",
    )


class LatentDensity(Protocol):
    """What the divergence needs of a mixture."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents, (n, D)."""
        ...

    def score_samples(self, z: Tensor) -> Tensor:
        """Log-densities of latents (N, D) in nats, (N,)."""
        ...


def latent_kl(
    density: LatentDensity,
    log_prior: Callable[[Tensor], Tensor],
    ranks: Ranks,
    *,
    num_samples: int = 10_000,
    runs: int = 10,
    seed: int = 0,
) -> Tensor:
    """Monte Carlo estimates of KL(q_hat || p) = E_q_hat[log q_hat(z) - log p(z)], as in Table 1 of the paper.

    Run r draws its `num_samples` latents from (seed, r), whichever process does it. Returns (runs,), float64 nats, the
    same on every process.
    """
    estimates = torch.zeros(runs, dtype=torch.float64)
    for run in range(ranks.rank, runs, ranks.world_size):
        z = density.sample(num_samples, generator=seeded_generator(seed, "latent divergence", run))
        log_ratio = torch.as_tensor(density.score_samples(z)).double() - log_prior(z.double())
        estimates[run] = log_ratio.mean()
    return ranks.sum_(estimates.to(ranks.device)).cpu()
