"""Small mixtures and points that several specifications share."""

import numpy as np
import torch

from trainer.mixture import GaussianMixture

TYPES = ("full", "tied", "diag", "spherical")


def known_mixture(
    covariance_type: str, *, k: int = 4, dim: int = 3, spread: float = 4.0, seed: int = 0
) -> GaussianMixture:
    """A mixture with random means `spread` apart and anisotropic covariances."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(k, dim, dim, generator=generator, dtype=torch.float64)
    full = 0.5 * root @ root.mT + 0.2 * torch.eye(dim, dtype=torch.float64)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": full.diagonal(dim1=1, dim2=2).contiguous(),
        "spherical": full[:, 0, 0].contiguous(),
    }[covariance_type]
    weights = torch.rand(k, generator=generator, dtype=torch.float64) + 0.5
    means = spread * torch.randn(k, dim, generator=generator, dtype=torch.float64)
    return GaussianMixture.from_parameters(weights / weights.sum(), means, covariances, covariance_type)


def draws(mixture: GaussianMixture, n: int, seed: int = 1) -> torch.Tensor:
    """n points (n, D) of `mixture`."""
    return mixture.sample(n, torch.Generator().manual_seed(seed))


def plain(**settings: object) -> dict[str, object]:
    """Settings of maximum likelihood without annealing, shrinkage or inflation, in float64."""
    return {
        "prior_strength": 0.0,
        "inflation": 1.0,
        "annealing_iter": 0,
        "products": "float64",
        "candidates": 0,
    } | settings


def dense_covariances(mixture: GaussianMixture) -> np.ndarray:
    """(K, D, D) whatever the covariance type."""
    k, dim = mixture.means_.shape
    covariances = mixture.covariances_
    if mixture.settings.covariance_type == "tied":
        covariances = covariances.expand(k, dim, dim)
    elif mixture.settings.covariance_type == "diag":
        covariances = torch.diag_embed(covariances)
    elif mixture.settings.covariance_type == "spherical":
        covariances = covariances[:, None, None] * torch.eye(dim, dtype=torch.float64)
    return covariances.numpy()
