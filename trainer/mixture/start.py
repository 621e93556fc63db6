"""What a fit starts from: k-means, given parameters, or the mixture of another fit."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.mixture.em.dense import hard_statistics
from trainer.mixture.em.m_step import grow, m_step
from trainer.mixture.kmeans import KMeansCheckpoint, kmeans
from trainer.mixture.parameters import Parameters, pack_covariances
from trainer.mixture.points import Array, Points, Standardisation, tensor_of
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

# Where k-means costs nothing it is run several times, as it ends in the nearest of many optima.
_STARTS_OF_SMALL = 5


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a fit starts from, in the data's coordinates; what is None follows from k-means.

    Where all three are given there is no k-means, and components that are missing come from splitting the heaviest.
    """

    weights: Tensor | None = None
    """(K,), summing to 1."""
    means: Tensor | None = None
    """(K, D)."""
    covariances: Tensor | None = None
    """In the packed shape of `Parameters.covariances`."""
    record: dict[str, float] | None = None
    """The last record of the history of the fit that this one continues, so that convergence is seen at once."""

    @property
    def tensors(self) -> dict[str, Tensor | None]:
        """What is given, by name."""
        return {"weights": self.weights, "means": self.means, "covariances": self.covariances}

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to k-means."""
        return self.weights is not None and self.means is not None and self.covariances is not None

    def grown(self, covariance_type: str, n_components: int) -> Parameters:
        """The mixture of a complete start, in the data's coordinates.

        The heaviest components are split up to n_components.
        """
        assert self.weights is not None
        assert self.means is not None
        assert self.covariances is not None
        whole = Parameters(
            covariance_type=covariance_type, weights=self.weights, means=self.means, covariances=self.covariances
        )
        return grow(whole, n_components)

    @staticmethod
    def at(parameters: Parameters) -> "Start":
        """From a mixture of the same number of components or fewer."""
        return Start(weights=parameters.weights, means=parameters.means, covariances=parameters.covariances)


def first_parameters(
    start: Start | None,
    standardisation: Standardisation,
    points: Points,
    settings: Settings,
    ranks: Ranks,
    checkpoint: KMeansCheckpoint | None,
) -> tuple[Parameters, int]:
    """The parameters before the first iteration, for standardised points, and how many components have points.

    checkpoint: see `kmeans`.
    """
    names = ("weights", "means", "covariances")
    given = {name: getattr(start, name).to(ranks.device) for name in names if getattr(start, name, None) is not None}
    if start is not None and start.is_complete:
        whole = start.grown(settings.covariance_type, settings.n_components).to(ranks.device)
        return standardisation.apply_to_parameters(whole), settings.n_components
    found, with_points = kmeans_start(points, settings, ranks, checkpoint)
    if given:
        found = standardisation.apply_to_parameters(replace(standardisation.invert(found), **given))
    return found, with_points


def kmeans_start(
    points: Points, settings: Settings, ranks: Ranks, checkpoint: KMeansCheckpoint | None = None
) -> tuple[Parameters, int]:
    """The mixture of the k-means clusters, and how many of them have points. checkpoint: see `kmeans`."""
    k, kind = settings.n_components, settings.covariance_type
    generator = torch.Generator().manual_seed(settings.random_state)
    several = settings.products == "centred" and settings.init_params == "auto"
    least = math.inf
    for _ in range(_STARTS_OF_SMALL if several else 1):
        found = kmeans(
            points.x,
            k,
            iterations=settings.kmeans_iter,
            init=settings.init_params,
            generator=generator,
            ranks=ranks,
            checkpoint=checkpoint,
        )
        inertia = float(ranks.sum_((points.x - found[0][found[1]]).square().sum()[None])[0]) if several else 0.0
        # Equal clusters in another order do not count as better on one process and not on another.
        if inertia < least * (1 - 1e-9) or least == math.inf:
            least, (centroids, labels) = inertia, found
    statistics = hard_statistics(points, labels, kind, centroids).all_reduce(ranks)
    with_points = int((statistics.counts > 0).sum())
    start = m_step(statistics, kind, ridge=settings.reg_covar, prior_strength=settings.nu(points.x.shape[1]))
    return start, with_points


def given_start(
    weights_init: Array | None,
    means_init: Array | None,
    precisions_init: Array | None,
    *,
    settings: Settings,
    dim: int,
) -> Start:
    """scikit-learn's start parameters, in its shapes, as a start. Raises InputError where one cannot be.

    settings: of the fit; dim: D.
    """
    k, kind = settings.n_components, settings.covariance_type
    weights = means = covariances = None
    if weights_init is not None:
        weights = _shaped(weights_init, "weights_init", "weights", (k,))
        low, high, total = float(weights.min()), float(weights.max()), float(weights.sum())
        if low < 0 or high > 1:
            message = (
                f"The parameter 'weights' should be in the range [0, 1], but got max value {low:.5f}, "
                f"min value {high:.5f}"
            )
            raise InputError(message, parameter="weights_init")
        if not math.isclose(total, 1, abs_tol=1e-6):
            message = f"The parameter 'weights' should be normalized, but got sum(weights) = {total:.5f}"
            raise InputError(message, parameter="weights_init")
    if means_init is not None:
        means = _shaped(means_init, "means_init", "means", (k, dim))
    if precisions_init is not None:
        shape = {"full": (k, dim, dim), "tied": (dim, dim), "diag": (k, dim), "spherical": (k,)}[kind]
        precisions = _shaped(precisions_init, "precisions_init", f"{kind} precision", shape)
        covariances = _inverted(precisions, kind)
    return Start(weights=weights, means=means, covariances=covariances)


def _shaped(given: Array, parameter: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """A start parameter as a float64 tensor. Raises InputError for another shape or values that are not finite."""
    try:
        tensor = (given.detach() if isinstance(given, Tensor) else tensor_of(np.asarray(given, np.float64))).double()
    except (TypeError, ValueError) as error:
        raise InputError(f"The parameter '{name}' is not an array of numbers ({error})", parameter=parameter) from error
    if tuple(tensor.shape) != shape:
        message = f"The parameter '{name}' should have the shape of {shape}, but got {tuple(tensor.shape)}"
        raise InputError(message, parameter=parameter)
    if not torch.isfinite(tensor).all():
        raise InputError(f"The parameter '{name}' has values that are NaN or infinite", parameter=parameter)
    return tensor


def _inverted(precisions: Tensor, kind: str) -> Tensor:
    """Packed covariances of precisions in scikit-learn's shape. Raises InputError unless they are positive definite."""
    if kind in ("diag", "spherical"):
        if not (precisions > 0).all():
            raise InputError(f"'{kind} precision' should be positive", parameter="precisions_init")
        return pack_covariances(kind, 1 / precisions)
    factors, info = torch.linalg.cholesky_ex(precisions)
    if info.any() or not torch.allclose(precisions, precisions.mT):
        raise InputError(f"'{kind} precision' should be symmetric, positive-definite", parameter="precisions_init")
    return pack_covariances(kind, torch.cholesky_inverse(factors))
