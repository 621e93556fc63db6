"""The exact E-step of a truncated fit, with most components pruned by a bound in half the dimensions.

The Mahalanobis distance of a point from a component is at least that of their images in any subspace. A product in
half the dimensions, a quarter of the packed features, therefore prunes all but some tens of 10,000 components for each
point; a pruned one adds less than exp(-24) of the point's best density. The others are computed exactly.
"""

import torch
from torch import Tensor

from trainer.mixture.em.dense import DenseScores
from trainer.mixture.em.e_step import Statistics
from trainer.mixture.em.pairs import LEAST_RESPONSIBILITY, Factors, Pairs
from trainer.mixture.packed import pack, unpack
from trainer.mixture.parameters import Parameters, log_constants
from trainer.mixture.points import Points, second_moment
from trainer.process_group import single

# A component below exp(-24) of the best one adds less than 4e-11 of the density, 10,000 of them less than 4e-7.
_NEGLIGIBLE = 24.0
# The products' float32 may be wrong by a hundredth of a nat, see `DenseScores.safe`.
_ROUNDING = 0.1
# With fewer dimensions pruning saves too little work.
_FEWEST_DIMENSIONS = 32
# Above this part of all pairs the dense product is faster.
_LARGEST_SHARE = 0.04
_PAIRS_AT_A_TIME = 1_000_000


def worth_pruning(parameters: Parameters) -> bool:
    """Whether pruning saves time: full covariances in many dimensions."""
    return parameters.covariance_type == "full" and parameters.dim >= _FEWEST_DIMENSIONS


def pruned_statistics(points: Points, parameters: Parameters, factors: Factors, best: Tensor) -> Statistics | None:
    """The exact statistics of the points at inverse temperature 1, see `EStep`.

    factors: of `parameters`; best: (n,), for each point a score that some component reaches. Returns None where so few
    pairs are pruned that the dense E-step is faster.
    """
    statistics = Statistics.zeros("full", parameters.n_components, parameters.dim, points.x.device)
    adder = _Adder(points, factors, statistics)
    axes = _discriminant_axes(parameters)
    # The variance of points that are Gaussians only adds to their expected distances, so that the bound holds without.
    images = Points(points.x @ axes.t().to(points.x.dtype))
    first = left = 0
    for _, _, bounds, _ in _bounds(parameters, axes, images).chunks(images):
        least = best[first : first + len(bounds)] - (_NEGLIGIBLE + _ROUNDING)
        row, component = (bounds > least[:, None]).nonzero(as_tuple=True)
        left += len(row)
        if left > _LARGEST_SHARE * (first + len(bounds)) * parameters.n_components:
            return None
        adder.take(row + first, component)
        first += len(bounds)
    adder.add()
    statistics.totals[1] += len(points)
    return statistics


def _bounds(parameters: Parameters, axes: Tensor, images: Points) -> DenseScores:
    """Upper bounds of log w_k + log N(x; mu_k, Sigma_k), from the images of points and components on the axes."""
    dim = len(axes)
    covariances = parameters.covariances.new_empty(parameters.n_components, dim * (dim + 1) // 2)
    for block in parameters.blocks():
        covariances[block] = pack(axes @ parameters.matrices(block) @ axes.t())
    image = Parameters(
        covariance_type="full",
        weights=parameters.weights,
        means=parameters.means @ axes.t(),
        covariances=covariances,
    )
    bounds = DenseScores.safe(image, second_moment(images, single()))
    # The distance is that of the images, all else the component's own.
    bounds.coefficients[0] += (log_constants(parameters) - log_constants(image)).to(bounds.dtype)
    return bounds


class _Adder:
    """Adds the remaining pairs to float64 statistics, many pairs at a time."""

    def __init__(self, points: Points, factors: Factors, statistics: Statistics) -> None:
        self._points, self._factors, self._statistics = points, factors, statistics
        self._precise = points.to(torch.float64)
        self._collected: list[tuple[Tensor, Tensor]] = []
        self._count = 0

    def take(self, row: Tensor, component: Tensor) -> None:
        """Takes all pairs of some points."""
        self._collected.append((row, component))
        self._count += len(row)
        if self._count >= _PAIRS_AT_A_TIME:
            self.add()

    def add(self) -> None:
        """Adds the pairs collected so far."""
        if not self._collected:
            return
        row, component = (torch.cat(tensors) for tensors in zip(*self._collected, strict=True))
        pairs = Pairs.of(row, component, len(self._statistics.sums))
        scores = pairs.scores(self._points, self._factors).double()
        place = row - row[0]  # rows come in order
        count = int(place[-1]) + 1
        top = scores.new_full((count,), -torch.inf).scatter_reduce_(0, place, scores, "amax")
        relative = scores.sub_(top[place]).exp_()
        total = relative.new_zeros(count).index_add_(0, place, relative)
        self._statistics.totals[0] += (top + total.log()).sum()
        share = relative.div_(total[place])
        pairs.only(share > LEAST_RESPONSIBILITY).add_sums(self._precise, share, self._statistics.sums, "full")
        self._collected.clear()
        self._count = 0


def _discriminant_axes(parameters: Parameters) -> Tensor:
    """(D / 2, D): the directions in which means differ most beside the pooled covariance."""
    weights, means = parameters.weights, parameters.means
    centred = means - weights @ means
    between = (centred.t() * weights) @ centred
    whitening = torch.linalg.inv(torch.linalg.cholesky(unpack(weights @ parameters.covariances, parameters.dim)))
    _, vectors = torch.linalg.eigh(whitening @ between @ whitening.t())  # ascending
    return (whitening.t() @ vectors[:, -(parameters.dim // 2) :]).t()
