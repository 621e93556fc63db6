"""Exact statistics of many components, most of which a bound of their densities leaves out of each point's sums."""

import torch
from torch import Tensor

from trainer.mixture.em.dense import DenseScores
from trainer.mixture.em.e_step import Statistics
from trainer.mixture.em.pairs import LEAST_RESPONSIBILITY, Factors, Pairs
from trainer.mixture.packed import pack, unpack
from trainer.mixture.parameters import Parameters, log_constants
from trainer.mixture.points import Points, second_moment
from trainer.mixture.working_memory import numbers_at_a_time
from trainer.process_group import single

# A component below exp(-24) of the best one adds less than 4e-11 of the density, 10,000 of them less than 4e-7.
_NEGLIGIBLE = 24.0
# Pairs are computed in float32 too.
_ROUNDING = 0.1
# With fewer dimensions pruning saves too little work.
_FEWEST_DIMENSIONS = 32
# Above this part of all pairs the dense product is faster.
_LARGEST_SHARE = 0.08
_PAIRS_AT_A_TIME = 500_000


def worth_pruning(parameters: Parameters) -> bool:
    """Whether pruning saves time: full covariances in many dimensions."""
    return parameters.covariance_type == "full" and parameters.dim >= _FEWEST_DIMENSIONS


def pruned_statistics(
    points: Points,
    parameters: Parameters,
    factors: Factors,
    best: Tensor,
    onto: Statistics | None = None,
    components: "ProjectedComponents | None" = None,
) -> Statistics | None:
    """The exact statistics of the points at inverse temperature 1, with most components pruned; see `EStep`.

    The Mahalanobis distance of a point from a component is at least that of their projections on any subspace. A
    product in half the dimensions, a quarter of the packed features, therefore prunes all but some tens of 10,000
    components for each point; a pruned one adds less than exp(-24) of the point's best density. The others are computed
    exactly.

    factors: of `parameters`; best: (n,), for each point a score that some component reaches; onto: see `EStep.exact`;
    components: those of `parameters`, where they were made before.
    Returns None, with nothing added, where so few pairs of the first points are pruned that the dense E-step is faster.
    """
    k, dim, origins = parameters.n_components, parameters.dim, parameters.means
    components = ProjectedComponents(parameters, factors.constants) if components is None else components
    # The variance of points that are Gaussians only adds to their expected distances, so that the bound holds without.
    projected = Points(points.x @ components.axes.t().to(points.x.dtype))
    first = left = 0
    scores = components.bounds(projected)
    if scores is None:
        return None
    statistics = Statistics.zeros("full", k, dim, points.x.device, origins) if onto is None else onto
    adder = _Adder(points, factors, statistics)
    for chunk, _, bounds, _ in scores.chunks(projected):
        margin = _NEGLIGIBLE + _ROUNDING + scores.rounding(chunk.x)
        least = best[first : first + len(bounds)] - margin
        row, component = (bounds > least[:, None]).nonzero(as_tuple=True)
        left += len(row)
        if not adder.has_added and left > _LARGEST_SHARE * (first + len(bounds)) * parameters.n_components:
            return None
        adder.take(row + first, component)
        first += len(bounds)
    adder.add()
    statistics.totals[1] += len(points)
    return statistics


class ProjectedComponents:
    """The components projected on the discriminant axes, for upper bounds of log w_k + log N(x; mu_k, Sigma_k).

    constants: (K,), those without the quadratic term.
    """

    def __init__(self, parameters: Parameters, constants: Tensor) -> None:
        self._parameters, self._constants = parameters, constants
        self.axes = _discriminant_axes(parameters)
        """(D / 2, D)"""
        self._bounds: DenseScores | None = None

    def bounds(self, projected: Points) -> DenseScores | None:
        """The bounds, as scores of points projected on the axes. None where packed products cannot hold them.

        Once made, they serve for other points too: `DenseScores.rounding` bounds the error at each.
        """
        if self._bounds is None:
            mixture = self._projected()
            self._bounds = DenseScores.safe(mixture, second_moment(projected, single()))
            if self._bounds is not None:
                # The distance is that of the projections, all else the component's own.
                self._bounds.coefficients[0] += (self._constants - log_constants(mixture)).to(self._bounds.dtype)
        return self._bounds

    def _projected(self) -> Parameters:
        parameters, dim = self._parameters, len(self.axes)
        covariances = parameters.covariances.new_empty(parameters.n_components, dim * (dim + 1) // 2)
        for block in parameters.blocks():
            covariances[block] = pack(self.axes @ parameters.matrices(block) @ self.axes.t())
        return Parameters(
            covariance_type="full",
            weights=parameters.weights,
            means=parameters.means @ self.axes.t(),
            covariances=covariances,
        )


class _Adder:
    """Adds the remaining pairs to float64 statistics, many pairs at a time."""

    def __init__(self, points: Points, factors: Factors, statistics: Statistics) -> None:
        self._points, self._factors, self._statistics = points, factors, statistics
        self._precise = points.to(torch.float64)
        self._collected: list[tuple[Tensor, Tensor]] = []
        self._count = 0
        self.has_added = False
        """Whether the statistics have changed."""

    def take(self, row: Tensor, component: Tensor) -> None:
        """Takes all pairs of some points."""
        self._collected.append((row, component))
        self._count += len(row)
        if self._count >= numbers_at_a_time(_PAIRS_AT_A_TIME, row.device):
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
        pairs.only(share > LEAST_RESPONSIBILITY).add_sums(self._precise, share, self._statistics, "full")
        self._collected.clear()
        self._count, self.has_added = 0, True


def _discriminant_axes(parameters: Parameters) -> Tensor:
    """(D / 2, D): the directions in which means differ most beside the pooled covariance."""
    weights, means = parameters.weights, parameters.means
    centred = means - weights @ means
    between = (centred.t() * weights) @ centred
    whitening = torch.linalg.inv(torch.linalg.cholesky(unpack(weights @ parameters.covariances, parameters.dim)))
    _, vectors = torch.linalg.eigh(whitening @ between @ whitening.t())  # ascending
    return (whitening.t() @ vectors[:, -(parameters.dim // 2) :]).t()
