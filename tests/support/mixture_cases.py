"""Small mixtures and points that several specifications share."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as ScikitMixture

from trainer.mixture import GaussianMixture
from trainer.mixture.fitting import fit_mixture
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import checked_points
from trainer.mixture.settings import Settings
from trainer.mixture.start import Start
from trainer.process_group import Ranks, single

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
    return mixture.density_.sample(n, torch.Generator().manual_seed(seed))


def fitted(
    x: torch.Tensor,
    n_components: int,
    *,
    variance: torch.Tensor | None = None,
    start: Parameters | None = None,
    ranks: Ranks | None = None,
    **settings: Any,
) -> GaussianMixture:
    """`fit_mixture` on points (n, D), with or without a variance each, as an estimator. settings: also its keywords."""
    ranks = ranks or single()
    keywords = {name: settings.pop(name) for name in ("after", "checkpoint_seconds") if name in settings}
    if "checkpoint" in settings:
        keywords["checkpoint"] = Path(settings.pop("checkpoint"))
    return GaussianMixture.from_fitted(
        fit_mixture(
            checked_points(x, variance, "X", None, ranks),
            None,
            settings=Settings(n_components=n_components, **settings),
            start=None if start is None else Start.at(start),
            ranks=ranks,
            **keywords,
        )
    )


def to_sklearn(mixture: GaussianMixture) -> ScikitMixture:
    """The same density as a fitted scikit-learn model."""
    model = ScikitMixture(mixture.parameters_.n_components, covariance_type=mixture.parameters_.covariance_type)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        setattr(model, name, np.asarray(getattr(mixture, name)))
    model.n_features_in_, model.converged_, model.n_iter_ = mixture.parameters_.dim, True, 0
    return model


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
    if mixture.parameters_.covariance_type == "tied":
        covariances = covariances.expand(k, dim, dim)
    elif mixture.parameters_.covariance_type == "diag":
        covariances = torch.diag_embed(covariances)
    elif mixture.parameters_.covariance_type == "spherical":
        covariances = covariances[:, None, None] * torch.eye(dim, dtype=torch.float64)
    return covariances.numpy()
