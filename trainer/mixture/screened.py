"""The exact E-step of a truncated fit, without meeting every component in all dimensions.

The Mahalanobis distance of a point from a component is at least that of their images in any subspace. So a product in
half the dimensions, a quarter of the packed features, rules out all but some tens of 10,000 components for each point,
and what it rules out could not add exp(-24) of the point's best density. The others are met as they are.
"""

import torch
from torch import Tensor

from trainer.mixture.dense import DenseScores
from trainer.mixture.packed import pack, unpack
from trainer.mixture.pairs import Factors, Pairs
from trainer.mixture.parameters import Parameters, log_constants
from trainer.mixture.points import Points, second_moment
from trainer.mixture.sparse_sums import LEAST_RESPONSIBILITY
from trainer.mixture.statistics import Statistics
from trainer.process_group import single

# A component below exp(-24) of the best one adds less than 4e-11 of the density, 10,000 of them less than 4e-7.
_NEGLIGIBLE = 24.0
# The products' float32 may be wrong by a hundredth of a nat, see `DenseScores.safe`.
_ROUNDING = 0.1
# With fewer dimensions the half of them is too small a part of the work to be spared.
_FEWEST_DIMENSIONS = 32
_PAIRS_AT_A_TIME = 1_000_000


def can_screen(parameters: Parameters) -> bool:
    """Whether screening pays: full covariances in many dimensions."""
    return parameters.covariance_type == "full" and parameters.dim >= _FEWEST_DIMENSIONS


class Screen:
    """What rules components out for points of one mixture of full covariances."""

    def __init__(self, parameters: Parameters, points: Points) -> None:
        self._axes = _discriminant_axes(parameters)  # (m, D)
        m = len(self._axes)
        packed = parameters.covariances.new_empty(parameters.n_components, m * (m + 1) // 2)
        for block in parameters.blocks():
            packed[block] = pack(self._axes @ parameters.matrices(block) @ self._axes.t())
        image = Parameters(
            covariance_type="full",
            weights=parameters.weights,
            means=parameters.means @ self._axes.t(),
            covariances=packed,
        )
        seen = Points(points.x.double() @ self._axes.t())
        self._scores = DenseScores.safe(image, second_moment(seen, single()))
        # The distance is that of the images, everything else is the component's own.
        own = log_constants(parameters) - log_constants(image)
        self._scores.coefficients[0] += own.to(self._scores.dtype)

    def left(self, points: Points, best: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs (row, component) that may matter, chunk after chunk; best: (n,), a score that some component reaches.

        Yields them as long as memory allows, so a caller adds up before it asks for more.
        """
        raise NotImplementedError


def _discriminant_axes(parameters: Parameters) -> Tensor:
    """(D / 2, D): the directions in which means differ most beside the pooled covariance."""
    weights, means = parameters.weights, parameters.means
    centred = means - weights @ means
    between = (centred.t() * weights) @ centred
    whitening = torch.linalg.inv(torch.linalg.cholesky(unpack(weights @ parameters.covariances, parameters.dim)))
    _, vectors = torch.linalg.eigh(whitening @ between @ whitening.t())  # ascending
    return (whitening.t() @ vectors[:, -(parameters.dim // 2) :]).t()
