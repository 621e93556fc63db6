"""The numbers of an image's likelihood: names, units, and how they follow from the samples."""

from collections.abc import Mapping

import torch
from torch import Tensor

from eval.likelihood.discretised import bits_per_dimension
from eval.likelihood.likelihood import PosteriorSamples, Prior, effective_samples, log_mean_exp
from eval.results import Measured

# name: unit, for every model
_OF_THE_MODEL = {
    "elbo": "nats per image",
    "log_likelihood": "nats per image",
    "kl": "nats per image",
    "mean_square_error": "squared pixel units",
}
# and for every density over the latents
_OF_A_DENSITY = {
    "iwae": "nats per image",
    "bits_per_dimension": "bits per pixel value",
    "effective_samples": "samples",
}
_OF_THE_MIXTURE = {"held_out_log_ratio": "nats per image"}


def units(densities: Mapping[str, Prior]) -> dict[str, str]:
    """Name and unit of every number, in order. densities: "prior", and "q_hat" where a mixture was fitted."""
    named = {f"{name}_{density}": text for density in densities for name, text in _OF_A_DENSITY.items()}
    return _OF_THE_MODEL | named | (_OF_THE_MIXTURE if "q_hat" in densities else {})


def image_values(samples: PosteriorSamples, d: int, densities: Mapping[str, Prior]) -> Tensor:
    """The numbers of `units` for B images of d pixel values, (B, number of units), float64.

    held_out_log_ratio is E_q[log q_hat(z) - log p(z)]; KL(q_hat || p) is the same mean over q_hat's own samples. Where
    KL(q_hat || p) is much the larger, the mixture remembers its training codes.
    """
    values = {
        "elbo": samples.elbo(),
        "log_likelihood": samples.log_likelihood.mean(0),
        "kl": samples.kl,
        "mean_square_error": samples.square_error.mean(0),
    }
    log_densities = {name: samples.prior_terms(density) for name, density in densities.items()}  # (K, B) each
    for name, log_density in log_densities.items():
        log_ratio = log_density - samples.log_posterior
        log_weights = samples.log_likelihood + log_ratio
        values[f"iwae_{name}"] = log_mean_exp(log_weights)
        values[f"effective_samples_{name}"] = effective_samples(log_weights)
        values[f"bits_per_dimension_{name}"] = bits_per_dimension(log_mean_exp(samples.log_discretised + log_ratio), d)
    if "q_hat" in log_densities:
        values["held_out_log_ratio"] = (log_densities["q_hat"] - log_densities["prior"]).mean(0)
    return torch.stack([values[name] for name in units(densities)], dim=1)


def summary(table: Tensor, densities: Mapping[str, Prior]) -> dict[str, Measured]:
    """Mean over the images of a table (N, number of units), with its standard error (None for one image) and unit."""
    error = table.std(0) / len(table) ** 0.5
    return {
        name: Measured(
            value=table[:, column].mean().item(),
            standard_error=error[column].item() if len(table) > 1 else None,
            unit=text,
        )
        for column, (name, text) in enumerate(units(densities).items())
    }
