"""What a fitted mixture is like: distance to the prior, effective size, eigenvalues."""

from typing import Any

import torch

from trainer.mixture.gaussian_mixture import GaussianMixture
from trainer.objectives.gaussian import log_prior

_PRIOR_SAMPLES = 10_000


def kl_to_prior(
    mixture: GaussianMixture, generator: torch.Generator, samples: int = _PRIOR_SAMPLES
) -> tuple[float, float]:
    """KL(q_hat || N(0, I)) in nats by Monte Carlo, and its standard error."""
    z = mixture.sample(samples, generator).double()
    difference = mixture.score_samples(z) - log_prior(z)
    return float(difference.mean()), float(difference.std() / samples**0.5)


def effective_components(mixture: GaussianMixture) -> float:
    """exp of the entropy of the weights: K where all weigh the same, 1 where one has everything."""
    weights = mixture.weights_[mixture.weights_ > 0]
    return float((-(weights * weights.log()).sum()).exp())


def describe(mixture: GaussianMixture, seed: int) -> dict[str, Any]:
    """The facts about a mixture alone, for its summary."""
    kl, error = kl_to_prior(mixture, torch.Generator().manual_seed(seed))
    low, high = mixture.parameters_.eigenvalue_range()
    return {
        "kl_to_prior": {"nats": kl, "standard_error": error, "samples": _PRIOR_SAMPLES, "seed": seed},
        "effective_components": effective_components(mixture),
        "eigenvalues": {"smallest": low, "largest": high},
        "free_numbers": mixture.parameters_.n_free_numbers(),
    }
