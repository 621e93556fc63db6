"""The truncated E-step: each point is scored against a few candidate components only.

The candidates of a point are its best components of the last iteration and the neighbours of the first two, so that
they follow components that move. The densities of those pairs are exact (triangular factors, no packed products); the
mass of all other components is left out, so that the log-likelihood is a lower bound. The first candidates come from a
search index over the whitened means, the later ones from a graph of neighbouring components.

A truncated fit ends with exact statistics; `pruned_statistics` computes them from few pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.mixture.em.dense import DenseEStep, DenseScores
from trainer.mixture.em.e_step import Statistics, inflated_log_densities
from trainer.mixture.em.pairs import LEAST_RESPONSIBILITY, Factors, FactorsInPassing, Pairs
from trainer.mixture.nearest import NearestIndex
from trainer.mixture.packed import pack, unpack
from trainer.mixture.parameters import Parameters, log_constants
from trainer.mixture.points import Points, second_moment
from trainer.mixture.working_memory import numbers_at_a_time
from trainer.process_group import single

# Pairs with a smaller responsibility are left out of the sums.
_LEAST_CANDIDATE_RESPONSIBILITY = 1e-4
# The largest precision times second moment, in one dimension, at which points are kept in float32.
_LARGEST_IN_FLOAT32 = 1e4
# E-steps between two searches for neighbouring components.
_STEPS_BETWEEN_GRAPHS = 4


class NearestComponents:
    """Search for the nearest means, in coordinates where the pooled covariance is the identity."""

    def __init__(self, parameters: Parameters) -> None:
        pooled = (parameters.weights / parameters.weights.sum()) @ parameters.covariances.expand(
            parameters.n_components, -1
        )
        if parameters.covariance_type in ("full", "tied"):
            cholesky = torch.linalg.cholesky(unpack(pooled, parameters.dim))
            self._white = torch.linalg.inv(cholesky)  # (D, D)
        else:
            self._white = pooled.expand(parameters.dim).rsqrt().diag()
        self._index = NearestIndex(parameters.means @ self._white.mT)

    def search(self, x: Tensor, count: int) -> Tensor:
        """The `count` components whose means are nearest to each point x (n, D). Returns (n, count) int64."""
        return self._index.search(x.double() @ self._white.mT, count)


def pair_scores(points: Points, candidates: Tensor, pairs: Pairs, factors: Factors | FactorsInPassing) -> Tensor:
    """The scores (n, C) of candidates (n, C). A component that is twice in a row gets -inf the second time."""
    scores = pairs.scores(points, factors).view(candidates.shape)
    ordered, place = candidates.sort(dim=1, stable=True)
    doubled = torch.zeros_like(scores, dtype=torch.bool)
    doubled[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return scores.masked_fill_(torch.zeros_like(doubled).scatter_(1, place, doubled), -torch.inf)


class TruncatedEStep:
    """The truncated `EStep`. width: C, candidates of a point; the rest as for `DenseEStep`."""

    def __init__(
        self, train: Points, held_out: Points | None, second_moment: Tensor, products: str, width: int
    ) -> None:
        if width % 4 or width < 8:
            raise ValueError(f"width {width} is not a multiple of 4 from 8 on")
        self._points = {"train": train} | ({} if held_out is None else {"held_out": held_out})
        self._second_moment, self._products, self._width = second_moment, products, width
        self._candidates: dict[str, Tensor] = {}
        self._graph: Tensor | None = None
        self._steps = 0
        self._factored: tuple[Parameters, Factors] | None = None
        self._images: tuple[Parameters, Images] | None = None

    def see(self, points: Points) -> None:
        """Other training points, from the same standardisation, whose candidates are searched for."""
        self._points["train"] = points
        self._candidates.pop("train", None)

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """See `EStep`."""
        if self._graph is None or self._steps % _STEPS_BETWEEN_GRAPHS == 0:
            self._graph = self._neighbours(parameters)
        self._steps += 1
        points, scores, pairs, _ = self._scores("train", parameters, self._factors_of(parameters))
        kind = parameters.covariance_type
        k, dim, origins = parameters.n_components, parameters.dim, parameters.means
        statistics = Statistics.zeros(kind, k, dim, points.x.device, origins)
        scaled = scores * beta
        statistics.totals[0] += torch.logsumexp(scaled, 1).double().sum() / beta
        statistics.totals[1] += len(points)
        responsibilities = scaled.softmax(1).flatten()
        selected = pairs.only(responsibilities > _LEAST_CANDIDATE_RESPONSIBILITY)
        selected.add_sums(points, responsibilities, statistics, kind)
        return statistics

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """See `EStep`."""
        if "held_out" not in self._points:
            return torch.zeros(0, len(inflations), dtype=torch.float64, device=parameters.means.device)
        is_factored = self._factored is not None and self._factored[0] is parameters
        few = parameters.covariance_type == "full" and not is_factored
        factors = FactorsInPassing(parameters) if few else self._factors_of(parameters)
        _, scores, _, candidates = self._scores("held_out", parameters, factors)
        constants = factors.constants[candidates]
        return inflated_log_densities(scores, constants, parameters.dim, inflations)

    def exact(self, name: str, parameters: Parameters, onto: Statistics | None = None) -> Statistics:
        """Exact statistics of the points "train" or "held_out", about the means, pruned by their candidates."""
        points, scores, _, _ = self._scores(name, parameters, self._factors_of(parameters))
        found, best, of_candidates = None, scores.amax(1), scores.logsumexp(1).double().sum()
        before = 0.0 if onto is None else float(onto.totals[0])
        del scores
        if worth_pruning(parameters):
            factors = self._factors_of(parameters)
            found = pruned_statistics(points, parameters, factors, best, onto, self._images_of(parameters, factors))
        if found is None:
            dense = DenseEStep(points, None, self._second_moment, self._products).exact("train", parameters)
            dense = dense.about(parameters.means, parameters.covariance_type)
            found = dense if onto is None else onto.add_(dense)
        found.totals[2] += found.totals[0] - before - of_candidates
        return found

    def forget(self) -> None:
        """See `EStep`. With thousands of components the factors are a third of all memory."""
        self._factored = None

    def state(self) -> dict[str, Tensor]:
        """See `EStep`: candidates and the graph of neighbours."""
        state = {f"candidates.{name}": tensor for name, tensor in self._candidates.items()}
        if self._graph is not None:
            state["graph"] = self._graph
        return state | {"steps": torch.tensor([self._steps])}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `EStep`."""
        device = self._second_moment.device
        self._candidates = {
            name.removeprefix("candidates."): tensor.to(device)
            for name, tensor in state.items()
            if name.startswith("candidates.")
        }
        self._graph = state["graph"].to(device) if "graph" in state else None
        self._steps = int(state["steps"])

    def _scores(
        self, name: str, parameters: Parameters, factors: Factors | FactorsInPassing
    ) -> tuple[Points, Tensor, Pairs, Tensor]:
        """Points of "train" or "held_out", the scores of their candidates (n, C), the pairs, and the candidates.

        The candidates of the next call follow from the scores.
        """
        points = self._points[name] = self._points[name].to(factors.dtype)
        if name not in self._candidates:
            self._candidates[name] = self._search(points.x, parameters)
        candidates = self._candidates[name].long()
        row = torch.arange(len(points), device=candidates.device).repeat_interleave(candidates.shape[1])
        pairs = Pairs.of(row, candidates.flatten(), parameters.n_components)
        scores = pair_scores(points, candidates, pairs, factors)
        if self._graph is not None and self._width < parameters.n_components:
            self._candidates[name] = self._followed(candidates, scores, self._graph)
        return points, scores, pairs, candidates

    def _factors_of(self, parameters: Parameters) -> Factors:
        """The factors of `parameters`, computed once for the training and the held-out points."""
        if self._factored is None or self._factored[0] is not parameters:
            self._factored = None  # frees the former ones first
            factors = Factors.of(parameters, self._points["train"].x.dtype)
            # Differences from means are exact but for the rounding of the points themselves.
            largest = float((factors.largest_precisions * self._second_moment).max())
            if self._products == "auto" and largest > _LARGEST_IN_FLOAT32 and factors.white.dtype == torch.float32:
                factors = Factors.of(parameters, torch.float64)
            self._factored = (parameters, factors)
        return self._factored[1]

    def _images_of(self, parameters: Parameters, factors: Factors) -> "Images":
        """The images of `parameters`, computed once for the training and the held-out points."""
        if self._images is None or self._images[0] is not parameters:
            self._images = (parameters, Images(parameters, factors.constants))
        return self._images[1]

    def _search(self, x: Tensor, parameters: Parameters) -> Tensor:
        if self._width >= parameters.n_components:
            return torch.arange(parameters.n_components, dtype=torch.int32, device=x.device).expand(len(x), -1)
        return NearestComponents(parameters).search(x, self._width).int()

    def _neighbours(self, parameters: Parameters) -> Tensor:
        """(K, C / 2) int32: the components nearest to each, itself left out."""
        count = min(self._width // 2, parameters.n_components - 1)
        return NearestComponents(parameters).search(parameters.means, count + 1)[:, 1:].int()

    def _followed(self, candidates: Tensor, scores: Tensor, graph: Tensor) -> Tensor:
        """The next candidates (n, C) int32: a quarter are the best so far, the rest neighbours of the first two."""
        kept = self._width // 4
        best = candidates.gather(1, scores.topk(kept, dim=1).indices)  # (n, C / 4), best first
        of_second = self._width - kept - graph.shape[1]
        return torch.cat([best.int(), graph[best[:, 0]], graph[best[:, 1], :of_second]], 1)


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
    components: "Images | None" = None,
) -> Statistics | None:
    """The exact statistics of the points at inverse temperature 1, with most components pruned; see `EStep`.

    The Mahalanobis distance of a point from a component is at least that of their images in any subspace. A product in
    half the dimensions, a quarter of the packed features, therefore prunes all but some tens of 10,000 components for
    each point; a pruned one adds less than exp(-24) of the point's best density. The others are computed exactly.

    factors: of `parameters`; best: (n,), for each point a score that some component reaches; onto: see `EStep.exact`;
    components: images of `parameters`, where they are known.
    Returns None, with nothing added, where so few pairs of the first points are pruned that the dense E-step is faster.
    """
    k, dim, origins = parameters.n_components, parameters.dim, parameters.means
    components = Images(parameters, factors.constants) if components is None else components
    # The variance of points that are Gaussians only adds to their expected distances, so that the bound holds without.
    images = Points(points.x @ components.axes.t().to(points.x.dtype))
    first = left = 0
    scores = components.bounds(images)
    if scores is None:
        return None
    statistics = Statistics.zeros("full", k, dim, points.x.device, origins) if onto is None else onto
    adder = _Adder(points, factors, statistics)
    for chunk, _, bounds, _ in scores.chunks(images):
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


class Images:
    """The images of components on the discriminant axes, for upper bounds of log w_k + log N(x; mu_k, Sigma_k).

    constants: (K,), those without the quadratic term.
    """

    def __init__(self, parameters: Parameters, constants: Tensor) -> None:
        self._parameters, self._constants = parameters, constants
        self.axes = _discriminant_axes(parameters)
        """(D / 2, D)"""
        self._bounds: DenseScores | None = None

    def bounds(self, images: Points) -> DenseScores | None:
        """The bounds, as scores of the images of points. None where packed products cannot hold them.

        Once made, they serve for other points too: `DenseScores.rounding` bounds the error at each.
        """
        if self._bounds is None:
            image = self._image()
            self._bounds = DenseScores.safe(image, second_moment(images, single()))
            if self._bounds is not None:
                # The distance is that of the images, all else the component's own.
                self._bounds.coefficients[0] += (self._constants - log_constants(image)).to(self._bounds.dtype)
        return self._bounds

    def _image(self) -> Parameters:
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
