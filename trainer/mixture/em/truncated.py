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

from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.em.e_step import Statistics, inflated_log_densities
from trainer.mixture.em.pairs import Factors, FactorsInPassing, Pairs
from trainer.mixture.em.pruned import ProjectedComponents, pruned_statistics, worth_pruning
from trainer.mixture.nearest import NearestIndex
from trainer.mixture.packed import unpack
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points

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
        self._projections: tuple[Parameters, ProjectedComponents] | None = None

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
            found = pruned_statistics(points, parameters, factors, best, onto, self._projected(parameters, factors))
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

    def _projected(self, parameters: Parameters, factors: Factors) -> "ProjectedComponents":
        """The projected components of `parameters`, computed once for the training and the held-out points."""
        if self._projections is None or self._projections[0] is not parameters:
            self._projections = (parameters, ProjectedComponents(parameters, factors.constants))
        return self._projections[1]

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
