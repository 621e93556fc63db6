"""The numbers of a fitted mixture in its summary.json: likelihoods, the KL to the prior, what follows from it alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.mixture.density import MixtureDensity
from trainer.objectives.gaussian import log_prior
from trainer.process_group import Ranks

_PRIOR_SAMPLES = 10_000


def kl_to_prior(
    density: MixtureDensity, generator: torch.Generator, samples: int = _PRIOR_SAMPLES
) -> tuple[float, float]:
    """KL(q_hat || N(0, I)) in nats by Monte Carlo, and its standard error."""
    z = density.sample(samples, generator).double()
    difference = density.score_samples(z) - log_prior(z)
    return float(difference.mean()), float(difference.std() / samples**0.5)


def effective_components(weights: Tensor) -> float:
    """exp of the entropy of the weights (K,): K where all are equal, 1 where one is 1."""
    positive = weights[weights > 0]
    return float((-(positive * positive.log()).sum()).exp())


def describe(density: MixtureDensity, seed: int) -> dict[str, Any]:
    """The entries of a summary that follow from the mixture alone. seed: of the samples of the KL to the prior."""
    kl, error = kl_to_prior(density, torch.Generator().manual_seed(seed))
    low, high = density.parameters.eigenvalue_range()
    return {
        "kl_to_prior": {"nats": kl, "standard_error": error, "samples": _PRIOR_SAMPLES, "seed": seed},
        "effective_components": effective_components(density.weights),
        "eigenvalues": {"smallest": low, "largest": high},
        "free_numbers": density.parameters.n_free_numbers(),
    }


def likelihood(density: MixtureDensity, samples: Tensor, ranks: Ranks) -> dict[str, Any]:
    """Mean log q_hat(z) in nats over the z ~ q(z|x) of all processes, (n, D) of this one, with its standard error.

    The standard error is None for a single z, from which none can be estimated.
    """
    values = density.score_samples(samples)
    sums = ranks.sum_(torch.stack([values.sum(), values.square().sum(), values.new_tensor(len(values))]))
    mean, points = sums[0] / sums[2], int(sums[2])
    error = None
    if points > 1:
        error = float(((sums[1] / points - mean.square()).clamp(min=0) / (points - 1)).sqrt())
    return {"nats": float(mean), "standard_error": error, "points": points, "of": "one sample of q(z|x)"}


def with_error(mean: Mapping[str, Any]) -> str:
    """The result of `likelihood`, or another mean of its form, in words: "-5.086 +- 0.031"."""
    error = mean["standard_error"]
    return f"{mean['nats']:.3f}" + ("" if error is None else f" +- {error:.3f}")


def summary_line(folder: Path, summary: Mapping[str, Any]) -> str:
    """A summary in one line."""
    return (
        f"{folder}: log-likelihood {summary['train']['nats']:.3f} train, {with_error(summary['held_out'])} held out, "
        f"KL to the prior {with_error(summary['kl_to_prior'])}"
    )
