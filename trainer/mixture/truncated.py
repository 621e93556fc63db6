"""The truncated E-step: each point meets only the few components that are likely to explain it.

A point keeps the components that it found best and looks at the neighbours of the first two, so that it follows
components that move. The densities of those pairs are exact (triangular factors, no packed products); what is left out
is the mass of all other components, so that the log-likelihood is a lower bound. The first candidates come from a
search index over the whitened means, the later ones from a graph of neighbouring components.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.dense import FLOAT32_LIMIT, packed_second_moment
from trainer.mixture.expectation import inflated_log_sums
from trainer.mixture.kmeans import search_index
from trainer.mixture.packed import pack, unpack
from trainer.mixture.parameters import LOG_2PI, Parameters
from trainer.mixture.points import Points
from trainer.mixture.statistics import Statistics

# Pairs with a smaller responsibility are left out of the sums.
_LEAST_RESPONSIBILITY = 1e-4
# Numbers in a padded block of the points of some components.
_BLOCK_NUMBERS = 2_000_000
_BLOCK_COMPONENTS = 256
# E-steps between two looks at which components are neighbours.
_STEPS_BETWEEN_GRAPHS = 4


@dataclass(frozen=True)
class Factors:
    """Components ready for the densities of pairs.

    white: full and tied (K, D, D), diag and spherical (K, D), so that |white (x - mu)|^2 is the Mahalanobis distance;
    constants: (K,), log w_k - D log(2 pi) / 2 - log det Sigma_k / 2.
    """

    white: Tensor
    constants: Tensor
    means: Tensor

    @staticmethod
    def of(parameters: Parameters, dtype: torch.dtype) -> "Factors":
        """The factors of a mixture, computed in float64 and rounded once."""
        kind, k, dim = parameters.covariance_type, parameters.n_components, parameters.dim
        if kind in ("diag", "spherical"):
            white = parameters.covariances.rsqrt().expand(-1, dim)
            log_det = -2 * white.log().sum(1)
            white = white.to(dtype)
        elif kind == "tied":
            single, log_det = parameters.whitening(slice(0, 1))
            white = single.to(dtype).expand(k, dim, dim)
        else:
            white = torch.empty(k, dim, dim, dtype=dtype, device=parameters.means.device)
            log_det = torch.empty(k, dtype=torch.float64, device=parameters.means.device)
            for block in parameters.blocks():
                factors, log_det[block] = parameters.whitening(block)
                white[block] = factors.to(dtype)
        constants = parameters.weights.log() - 0.5 * (dim * LOG_2PI + log_det)
        return Factors(white, constants.to(dtype), parameters.means.to(dtype))

    def squares(self, components: Tensor, points: Points) -> Tensor:
        """(Expected) Mahalanobis distances (b, m) of b components from m points each; points.x: (b, m, D)."""
        white = self.white[components]
        centred = points.x - self.means[components][:, None]
        if white.ndim == 3:
            squares = torch.bmm(centred, white.mT).square_().sum(2)
            precisions = white.square().sum(1)  # (b, D), the diagonal of W^T W
        else:
            squares = (centred * white[:, None]).square_().sum(2)
            precisions = white.square()
        if points.variance is not None:
            squares += (points.variance @ precisions[:, :, None])[..., 0]
        return squares


@dataclass(frozen=True)
class Pairs:
    """Pairs of a point and a component, ordered by component: order: (p,) places in the flattened candidates."""

    order: Tensor
    counts: Tensor

    @staticmethod
    def of(components: Tensor, k: int) -> "Pairs":
        """components: (p,), the component of each pair."""
        return Pairs(components.argsort(stable=True), torch.bincount(components, minlength=k))

    def only(self, components: Tensor, wanted: Tensor) -> "Pairs":
        """The pairs for which wanted (p,) is true."""
        order = self.order[wanted[self.order]]
        return Pairs(order, torch.bincount(components[order], minlength=len(self.counts)))

    def blocks(self, dim: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Components (b,), their pairs (b, m) padded with place 0, and which of those are real (b, m).

        Components with about as many pairs go together, so that little is padding.
        """
        by_count = self.counts.argsort()
        counts = self.counts[by_count]
        first = (self.counts.cumsum(0) - self.counts)[by_count]
        stop = len(counts)
        sizes = counts.tolist()
        while stop > 0 and sizes[stop - 1] > 0:
            widest = sizes[stop - 1]
            start = max(0, stop - min(_BLOCK_COMPONENTS, max(1, _BLOCK_NUMBERS // (widest * dim))))
            column = torch.arange(widest, device=counts.device)
            real = column < counts[start:stop, None]
            places = self.order[(first[start:stop, None] + column).where(real, 0)]
            yield by_count[start:stop], places, real
            stop = start


class Neighbours:
    """Which components lie near which, in coordinates where the pooled covariance is the identity."""

    def __init__(self, parameters: Parameters) -> None:
        pooled = (parameters.weights / parameters.weights.sum()) @ parameters.covariances.expand(
            parameters.n_components, -1
        )
        if parameters.covariance_type in ("full", "tied"):
            cholesky = torch.linalg.cholesky(unpack(pooled, parameters.dim))
            self._white = torch.linalg.inv(cholesky)  # (D, D)
        else:
            self._white = pooled.expand(parameters.dim).rsqrt().diag()
        self._index = search_index(parameters.means @ self._white.mT)

    def search(self, x: Tensor, count: int) -> Tensor:
        """The `count` components whose means are nearest to each point x (n, D). Returns (n, count) int64."""
        white = (x.double() @ self._white.mT).to("cpu", torch.float32).contiguous()
        return torch.from_numpy(self._index.search(white.numpy(), count)[1]).to(x.device)


def pair_scores(points: Points, candidates: Tensor, pairs: Pairs, factors: Factors) -> Tensor:
    """log w_k + log N(x; mu_k, Sigma_k), or its expectation where points are Gaussians, for k in candidates (n, C).

    A component that stands twice in a row gets -inf the second time. Returns (n, C).
    """
    width = candidates.shape[1]
    scores = points.x.new_empty(candidates.numel())
    for components, places, real in pairs.blocks(points.x.shape[1]):
        squares = factors.squares(components, points.rows(places // width))  # (b, m)
        values = factors.constants[components][:, None] - 0.5 * squares
        scores[places[real]] = values[real]
    scores = scores.view(candidates.shape)
    ordered, place = candidates.sort(dim=1, stable=True)
    doubled = torch.zeros_like(scores, dtype=torch.bool)
    doubled[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return scores.masked_fill_(torch.zeros_like(doubled).scatter_(1, place, doubled), -torch.inf)


def pair_sums(
    points: Points, responsibilities: Tensor, candidates: Tensor, pairs: Pairs, sums: Tensor, kind: str
) -> None:
    """Adds responsibilities (n, C) times features to sums (K, columns), for the pairs that matter."""
    weight, components = responsibilities.flatten(), candidates.flatten()
    width, dim = candidates.shape[1], points.x.shape[1]
    matter = pairs.only(components, weight > _LEAST_RESPONSIBILITY)
    for chosen, places, real in matter.blocks(dim):
        share = weight[places] * real  # (b, m)
        block = points.rows(places // width)
        weighted = share[..., None] * block.x  # (b, m, D)
        parts = [share.sum(1, keepdim=True), weighted.sum(1)]
        if kind == "full":
            scatter = torch.bmm(weighted.mT, block.x)  # (b, D, D)
            if block.variance is not None:
                scatter.diagonal(dim1=1, dim2=2).add_((share[..., None] * block.variance).sum(1))
            parts.append(pack(scatter))
        elif kind != "tied":
            squares = (weighted * block.x).sum(1)  # (b, D)
            if block.variance is not None:
                squares += (share[..., None] * block.variance).sum(1)
            parts.append(squares if kind == "diag" else squares.sum(1, keepdim=True))
        sums[chosen] += torch.cat(parts, 1).double()


class Truncated:
    """The truncated `Expectation`. width: C, candidates a point; the rest as for `Exact`."""

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

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """See `Expectation`."""
        if self._graph is None or self._steps % _STEPS_BETWEEN_GRAPHS == 0:
            self._graph = self._neighbours(parameters)
        self._steps += 1
        points, scores, pairs, candidates = self._scores("train", parameters)
        kind = parameters.covariance_type
        statistics = Statistics.zeros(kind, parameters.n_components, parameters.dim, points.x.device)
        scaled = scores * beta
        statistics.totals[0] += torch.logsumexp(scaled, 1).double().sum() / beta
        statistics.totals[1] += len(points)
        dtype = self._sums_dtype(parameters)
        pair_sums(points.to(dtype), scaled.softmax(1).to(dtype), candidates, pairs, statistics.sums, kind)
        if kind == "tied":
            statistics.common.add_(packed_second_moment(points))
        return statistics

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """See `Expectation`."""
        sums = torch.zeros(len(inflations) + 1, dtype=torch.float64, device=parameters.means.device)
        if "held_out" in self._points:
            points, scores, _, candidates = self._scores("held_out", parameters)
            constants = self._factors_of(parameters).constants[candidates]
            sums[:-1] += inflated_log_sums(scores, constants, parameters.dim, inflations)
            sums[-1] += len(points)
        return sums

    def state(self) -> dict[str, Tensor]:
        """See `Expectation`: candidates and the graph of neighbours."""
        state = {f"candidates.{name}": tensor for name, tensor in self._candidates.items()}
        if self._graph is not None:
            state["graph"] = self._graph
        return state | {"steps": torch.tensor([self._steps])}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `Expectation`."""
        device = self._second_moment.device
        self._candidates = {
            name.removeprefix("candidates."): tensor.to(device)
            for name, tensor in state.items()
            if name.startswith("candidates.")
        }
        self._graph = state["graph"].to(device) if "graph" in state else None
        self._steps = int(state["steps"])

    def _scores(self, name: str, parameters: Parameters) -> tuple[Points, Tensor, Pairs, Tensor]:
        """Points of "train" or "held_out", the scores of their candidates (n, C), the pairs, and the candidates.

        The candidates of the next call follow from the scores.
        """
        factors = self._factors_of(parameters)
        points = self._points[name]
        if name not in self._candidates:
            self._candidates[name] = self._search(points.x, parameters)
        candidates = self._candidates[name].long()
        pairs = Pairs.of(candidates.flatten(), parameters.n_components)
        scores = pair_scores(points, candidates, pairs, factors)
        if self._graph is not None and self._width < parameters.n_components:
            self._candidates[name] = self._followed(candidates, scores, self._graph)
        return points, scores, pairs, candidates

    def _factors_of(self, parameters: Parameters) -> Factors:
        """The factors of `parameters`, computed once for the training and the held-out points."""
        if self._factored is None or self._factored[0] is not parameters:
            self._factored = None  # frees the former ones first
            self._factored = (parameters, Factors.of(parameters, self._points["train"].x.dtype))
        return self._factored[1]

    def _sums_dtype(self, parameters: Parameters) -> torch.dtype:
        """float64 where float32 sums of squares would lose the smallest variances."""
        if self._products != "auto":
            return torch.float32 if self._products == "float32" else torch.float64
        white = self._factors_of(parameters).white
        precisions = white.square().sum(1) if white.ndim == 3 else white.square()  # (K, D)
        largest = float((precisions.amax(0) * self._second_moment).max())
        return torch.float32 if largest < FLOAT32_LIMIT else torch.float64

    def _search(self, x: Tensor, parameters: Parameters) -> Tensor:
        if self._width >= parameters.n_components:
            return torch.arange(parameters.n_components, dtype=torch.int32, device=x.device).expand(len(x), -1)
        return Neighbours(parameters).search(x, self._width).int()

    def _neighbours(self, parameters: Parameters) -> Tensor:
        """(K, C / 2) int32: the components nearest to each, itself left out."""
        count = min(self._width // 2, parameters.n_components - 1)
        return Neighbours(parameters).search(parameters.means, count + 1)[:, 1:].int()

    def _followed(self, candidates: Tensor, scores: Tensor, graph: Tensor) -> Tensor:
        """The next candidates (n, C) int32: a quarter are the best so far, the rest neighbours of the first two."""
        kept = self._width // 4
        best = candidates.gather(1, scores.topk(kept, dim=1).indices)  # (n, C / 4), best first
        of_second = self._width - kept - graph.shape[1]
        return torch.cat([best.int(), graph[best[:, 0]], graph[best[:, 1], :of_second]], 1)
