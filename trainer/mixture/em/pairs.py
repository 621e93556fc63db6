"""Densities and sums of chosen pairs of a point and a component, without packed products.

Pairs are grouped by component and computed in padded blocks, so that many small products become one batched product.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.mixture.em.e_step import Statistics
from trainer.mixture.packed import pack
from trainer.mixture.parameters import LOG_2PI, Parameters, inverse
from trainer.mixture.points import Points
from trainer.mixture.working_memory import numbers_at_a_time

# Numbers in a padded block of the points of some components.
_BLOCK_NUMBERS = 2_000_000
_BLOCK_COMPONENTS = 256
# 10,000 pairs that are left out change a count by less than 1e-6.
LEAST_RESPONSIBILITY = 1e-10
# Above this part of all pairs the dense product is faster.
_LARGEST_SHARE = 0.03
_PAIRS_BETWEEN_SUMS = 500_000


@dataclass(frozen=True)
class Factors:
    """Components ready for the densities of pairs.

    white: full and tied (K, D, D), diag and spherical (K, D), so that |white (x - mu)|^2 is the Mahalanobis distance;
    constants: (K,), log w_k - D log(2 pi) / 2 - log det Sigma_k / 2; largest_precisions: (D,), in each dimension the
    largest diagonal entry of the precision matrices.
    """

    white: Tensor
    constants: Tensor
    means: Tensor
    largest_precisions: Tensor

    @staticmethod
    def of(parameters: Parameters, dtype: torch.dtype) -> "Factors":
        """The factors of a mixture, computed in float64 and rounded once."""
        kind, k, dim = parameters.covariance_type, parameters.n_components, parameters.dim
        if kind in ("diag", "spherical"):
            white = parameters.covariances.rsqrt().expand(-1, dim)
            log_det = -2 * white.log().sum(1)
            largest = _precisions(white).amax(0)
            white = white.to(dtype)
        elif kind == "tied":
            single, log_det = parameters.whitening(slice(0, 1))
            largest = _precisions(single)[0]
            white = single.to(dtype).expand(k, dim, dim)
        else:
            largest = torch.zeros(dim, dtype=torch.float64, device=parameters.means.device)
            white = torch.empty(k, dim, dim, dtype=dtype, device=parameters.means.device)
            log_det = torch.empty(k, dtype=torch.float64, device=parameters.means.device)
            for block in parameters.blocks():
                factors, log_det[block] = parameters.whitening(block)
                white[block] = factors
                largest = torch.maximum(largest, _precisions(factors).amax(0))
        constants = parameters.weights.log() - 0.5 * (dim * LOG_2PI + log_det)
        return Factors(white, constants.to(dtype), parameters.means.to(dtype), largest)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of densities."""
        return self.white.dtype

    def squares(self, components: Tensor, points: Points) -> Tensor:
        """(Expected) Mahalanobis distances (b, m) of b components from m points each; points.x: (b, m, D)."""
        # Several times as fast as white[components].
        white = self.white.index_select(0, components)
        centred = points.x - self.means.index_select(0, components)[:, None]
        if white.ndim == 3:
            squares = torch.bmm(centred, white.mT).square_().sum(2)
        else:
            squares = centred.mul_(white[:, None]).square_().sum(2)
        if points.variance is not None:
            squares += (points.variance @ _precisions(white)[:, :, None])[..., 0]
        return squares


class FactorsInPassing:
    """`Factors` of full covariances for one pass over few points: each is made when its points come, and not kept.

    That is half the time and none of the memory. constants: (K,), of the components that have come.
    """

    dtype = torch.float64

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self.constants = torch.full_like(parameters.weights, torch.nan)

    def squares(self, components: Tensor, points: Points) -> Tensor:
        """See `Factors`."""
        parameters = self._parameters
        cholesky = parameters.cholesky(components)  # (b, D, D)
        log_det = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self.constants[components] = parameters.weights[components].log() - 0.5 * (parameters.dim * LOG_2PI + log_det)
        centred = points.x - parameters.means[components][:, None]
        squares = torch.linalg.solve_triangular(cholesky, centred.mT, upper=False).square_().sum(1)  # (b, m)
        if points.variance is not None:
            precisions = inverse(cholesky).diagonal(dim1=-2, dim2=-1)
            squares += (points.variance @ precisions[:, :, None])[..., 0]
        return squares


def _precisions(white: Tensor) -> Tensor:
    """The diagonals (b, D) of W^T W, the precision matrices, for W (b, D, D), or (b, D) where it is diagonal."""
    return white.square().sum(1) if white.ndim == 3 else white.square()


@dataclass(frozen=True)
class Pairs:
    """Pairs of a point, at `row` (p,), and a `component` (p,), of k components.

    order: (q,), the selected pairs, ordered by component; counts: (K,), how many each component has.
    """

    row: Tensor
    component: Tensor
    order: Tensor
    counts: Tensor

    @staticmethod
    def of(row: Tensor, component: Tensor, k: int) -> "Pairs":
        """All pairs of row (p,) and component (p,), int64."""
        return Pairs(row, component, component.argsort(stable=True), torch.bincount(component, minlength=k))

    def only(self, wanted: Tensor) -> "Pairs":
        """The pairs for which wanted (p,) is true."""
        order = self.order[wanted.index_select(0, self.order)]
        component = self.component.index_select(0, order)
        return replace(self, order=order, counts=torch.bincount(component, minlength=len(self.counts)))

    def blocks(self, dim: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Components (b,), their pairs (b, m) padded with pair 0, and which of those are real (b, m).

        Components with about as many pairs go together, so that little is padding.
        """
        by_count = self.counts.argsort()
        counts = self.counts[by_count]
        first = (self.counts.cumsum(0) - self.counts)[by_count]
        stop = len(counts)
        sizes = counts.tolist()
        numbers = numbers_at_a_time(_BLOCK_NUMBERS, counts.device)
        most = _BLOCK_COMPONENTS * max(1, numbers // _BLOCK_NUMBERS)
        while stop > 0 and sizes[stop - 1] > 0:
            widest = sizes[stop - 1]
            start = max(0, stop - min(most, max(1, numbers // (widest * dim))))
            column = torch.arange(widest, device=counts.device)
            real = column < counts[start:stop, None]
            places = _taken(self.order, (first[start:stop, None] + column).where(real, 0))
            yield by_count[start:stop], places, real
            stop = start

    def scores(self, points: Points, factors: "Factors | FactorsInPassing") -> Tensor:
        """log w_k + log N(x; mu_k, Sigma_k), or its expectation where points are Gaussians, (p,).

        Undefined for pairs that are not selected.
        """
        # The last place takes what is padding.
        scores = points.x.new_empty(len(self.component) + 1, dtype=factors.dtype)
        for components, places, real in self.blocks(points.x.shape[1]):
            squares = factors.squares(components, points.rows(_taken(self.row, places)).to(scores.dtype))  # (b, m)
            values = factors.constants[components][:, None] - 0.5 * squares
            scores.scatter_(0, places.where(real, len(self.component)).flatten(), values.flatten())
        return scores[:-1]

    def add_sums(self, points: Points, weight: Tensor, statistics: Statistics, kind: str) -> None:
        """Adds weight (p,) times features to the sums of `statistics`, about its origins."""
        for chosen, places, real in self.blocks(points.x.shape[1]):
            share = _taken(weight, places) * real
            add_block(statistics, kind, chosen, share, points.rows(_taken(self.row, places)))


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """values[places], (b, m), in a fifth of the time."""
    return values.index_select(0, places.flatten()).view(places.shape)


def add_block(statistics: Statistics, kind: str, chosen: Tensor, share: Tensor, block: Points) -> None:
    """Adds share (b, m) times the features of the m points beside each of the chosen components (b,).

    block.x: (b, m, D).
    """
    x = block.x
    if statistics.origins is not None:
        x = x - statistics.origins[chosen][:, None].to(x.dtype)
    # Sums over points are products: a third of the time of weighting the points first.
    row = share[:, None]  # (b, 1, m)
    parts = [share.sum(1, keepdim=True), torch.bmm(row, x)[:, 0]]
    if kind in ("full", "tied"):
        if kind == "full" or statistics.origins is not None:
            scatter = torch.bmm((share[..., None] * x).mT, x)  # (b, D, D)
            if block.variance is not None:
                scatter.diagonal(dim1=1, dim2=2).add_(torch.bmm(row, block.variance)[:, 0])
            if kind == "full":
                parts.append(pack(scatter))
            else:
                statistics.common.add_(pack(scatter.sum(0)))
    else:
        squares = torch.bmm(row, x.square())[:, 0]  # (b, D)
        if block.variance is not None:
            squares += torch.bmm(row, block.variance)[:, 0]
        parts.append(squares if kind == "diag" else squares.sum(1, keepdim=True))
    statistics.sums.index_add_(0, chosen, torch.cat(parts, 1).double())


class SparseSums:
    """The M-step's sums over the few pairs whose responsibility is not negligible, in place of a dense product.

    At inverse temperature 1 and in many dimensions a point belongs to a handful of thousands of components, and the
    dense product, half of an EM iteration, multiplies zeros. Pairs are added to float64 statistics many at a time.
    """

    def __init__(self, points: Points, statistics: Statistics, covariance_type: str) -> None:
        self._points, self._statistics, self._kind = points, statistics, covariance_type
        self._collected: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pairs = 0

    def take(self, first: int, relative: Tensor, total: Tensor) -> bool:
        """Takes the responsibilities relative / total (n, K) of the points from place `first` on.

        Returns False, and takes nothing, where they are not sparse enough.
        """
        row, component = (relative > LEAST_RESPONSIBILITY * total[:, None]).nonzero(as_tuple=True)
        if len(row) > _LARGEST_SHARE * relative.numel():
            return False
        self._collected.append((row + first, component, relative[row, component] / total[row]))
        self._pairs += len(row)
        if self._pairs >= _PAIRS_BETWEEN_SUMS:
            self.add()
        return True

    def add(self) -> None:
        """Adds the pairs collected so far."""
        if not self._collected:
            return
        row, component, weight = (torch.cat(tensors) for tensors in zip(*self._collected, strict=True))
        pairs = Pairs.of(row, component, len(self._statistics.sums))
        pairs.add_sums(self._points.to(torch.float64), weight.double(), self._statistics, self._kind)
        self._collected.clear()
        self._pairs = 0
