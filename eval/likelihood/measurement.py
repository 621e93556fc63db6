"""How likely held-out images are under a run: every term of the bounds with its standard error over the images."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from data_shards.io.progress import Progress
from eval.images.subset import gathered, image_noise, own_places, subset_blocks, subset_indices
from eval.likelihood.likelihood import Prior, sample_posterior
from eval.likelihood.values import image_values, summary, units
from eval.protocol import LikelihoodProtocol
from eval.questions import LikelihoodQuestion
from eval.results import LatentDivergence, LikelihoodResult, measured_before
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.density import MixtureDensity
from trainer.noise import seeded_generator
from trainer.objectives.gaussian import log_prior, variance_floor_cap
from trainer.process_group import Ranks
from trainer.updates.evaluation import ACTIVE_VARIANCE

KL_SAMPLES, KL_RUNS = 10_000, 10


def measure_likelihood(run: MeasuredRun, question: LikelihoodQuestion, ranks: Ranks) -> LikelihoodResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/likelihood.json (likelihood-stage1.json for the weights at the end of stage 1), and read from
    there where the same was measured before. Raises InputError where the split is too small, or the mixture missing.
    """
    mixture = run.mixture(question.mixture, question.covariance, ranks.device) if question.mixture else None
    protocol = run.protocol(
        LikelihoodProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure="likelihood 1",
        importance_samples=question.samples,
        mixture=f"{question.mixture}-{question.covariance}" if mixture else "",
        mixture_digest=mixture_digest(mixture) if mixture else "",
    )
    path = run.result_path("likelihood")
    found = measured_before(LikelihoodResult, path, protocol)
    if not ranks.any(found is None) and found is not None:
        return found
    result = _measured(run, question, mixture, protocol, ranks)
    if ranks.is_main:
        result.save(path)
    return result


def _measured(
    run: MeasuredRun,
    question: LikelihoodQuestion,
    mixture: MixtureDensity | None,
    protocol: LikelihoodProtocol,
    ranks: Ranks,
) -> LikelihoodResult:
    densities: dict[str, Prior] = {"prior": log_prior}
    if mixture:
        densities["q_hat"] = mixture.score_samples
    indices = subset_indices(run.manifest, question.split, question.images)
    table = torch.zeros(len(indices), len(units(densities)), dtype=torch.float64)
    posterior_means = torch.zeros(len(indices), run.model.latent_dim, dtype=torch.float64)
    mine = own_places(len(indices), ranks)
    with Progress(f"likelihood, {run.weights} weights", len(mine), show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, images in subset_blocks(run.config.data.shards, question.split, indices, ranks):
            noise = image_noise(question.seed, index.tolist(), question.samples, run.model.latent_dim)
            samples = sample_posterior(run.model, images, noise.to(ranks.device))
            table[places] = image_values(samples, run.model.pixels, densities).cpu()
            posterior_means[places] = samples.posterior_mean.cpu()
            bar.update(places.stop - mine.start)
    varies = gathered(posterior_means, ranks).var(0, correction=0) > ACTIVE_VARIANCE
    return LikelihoodResult(
        protocol=protocol,
        values=summary(gathered(table, ranks), densities),
        active_dimensions=int(varies.sum()),
        latent_kl=_divergence(mixture, question.seed, ranks) if mixture else None,
        cap=variance_floor_cap(run.model.pixels, run.variance_floor),
        dataset_variance=run.model.dataset_variance,
    )


def _divergence(mixture: MixtureDensity, seed: int, ranks: Ranks) -> LatentDivergence:
    """KL(q_hat || p) with its deviation over runs, as the paper's Table 1 gives it."""
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
