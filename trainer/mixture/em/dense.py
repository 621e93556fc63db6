"""The exact E-step: every point against every component, a chunk of points at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainer.mixture.em.centred import CentredScores, centred_statistics
from trainer.mixture.em.e_step import Statistics, inflated_log_densities, normalise_
from trainer.mixture.em.pairs import SparseSums
from trainer.mixture.packed import Features, diagonal_index, pack, quadratic_columns
from trainer.mixture.parameters import Parameters, coefficients, common_precision, log_constants
from trainer.mixture.points import Points
from trainer.mixture.working_memory import numbers_at_a_time

# The largest precision times second moment, in one dimension, at which packed products of a format are used. Measured
# in 64 dimensions, log-densities are then off by at most 1e-3 nats: 7e-6 times that number in float32.
PACKED_LIMITS = {torch.float32: 128.0, torch.float64: 5e10}
# Features and responsibilities of a chunk should stay in the cache; products are slow on very short chunks.
_CHUNK_NUMBERS = 1 << 20
_CHUNK_ROWS = (384, 768)
# In many dimensions so many numbers of features, of more points only where products with more components pay for them:
# those of all rows above would be GBs.
_FEATURE_NUMBERS = 1 << 21
_FEWEST_ROWS = 16
# With so few, a product whose first factor is the features of full covariances takes several times as long.
_FEW_COMPONENTS = 32
# Rows summed in the format of the products before they join the float64 sums.
_ROWS_BETWEEN_SUMS = 4096


def chunk_rows(n_components: int, columns: int, device: torch.device) -> int:
    """Points whose responsibilities, and so many columns of features, are held at one time."""
    if device.type == "cuda":
        # Beside the responsibilities their comparison with a bound, and for features their factors.
        return max(1, numbers_at_a_time(_CHUNK_NUMBERS, device) // (2 * (n_components + columns)))
    low, high = _CHUNK_ROWS
    rows = min(max(_CHUNK_NUMBERS // n_components, low), high)
    return min(rows, max(_FEATURE_NUMBERS // columns, n_components, _FEWEST_ROWS))


class DenseScores:
    """log w_k + log N(x; mu_k, Sigma_k) of chunks of points, in packed form."""

    def __init__(self, parameters: Parameters, dtype: torch.dtype, beta: float = 1.0) -> None:
        self.covariance_type, self.dtype, self.beta = parameters.covariance_type, dtype, beta
        self.dim, self.n_components = parameters.dim, parameters.n_components
        # (columns, K), so that no product has to transpose its second factor.
        self.coefficients = coefficients(parameters, dtype)
        self.common = common_precision(parameters).to(dtype) if parameters.covariance_type == "tied" else None
        self.largest_precisions = self._largest_precisions()
        if beta != 1:
            self.coefficients *= beta

    @staticmethod
    def safe(
        parameters: Parameters, second_moment: Tensor, products: str = "auto", beta: float = 1.0
    ) -> "DenseScores | None":
        """With products in the format `products`, see `Settings`; None where no format holds 1e-3 nats.

        second_moment: (D,), mean square of the (centred) points in each dimension.
        """
        formats = {"auto": (torch.float32, torch.float64), "float32": (torch.float32,), "float64": (torch.float64,)}
        for dtype in formats.get(products, ()):
            scores = DenseScores(parameters, dtype, beta)
            largest = float((scores.largest_precisions * second_moment).max())
            if products == "float32" or largest <= PACKED_LIMITS[dtype]:
                return scores
        return None

    def rounding(self, x: Tensor) -> Tensor:
        """A bound (n,) of the error of the logits of points x (n, D), by rounding, from any order of summation.

        Of components with factors C of the precision matrix the packed terms of a point are at most |constant|,
        sum_i |x_i| |b_i|, and (sum_i |C_i| |x_i|)^2 / 2; a sum of m terms is off by at most m units of rounding.
        """
        size = x.abs().to(self.dtype)
        linear = size @ self.coefficients[1 : 1 + self.dim].abs().amax(1)
        quadratic = 0.5 * (size @ self.largest_precisions.sqrt().to(self.dtype)).square()
        terms = self.coefficients[0].abs().max() + linear + quadratic
        return (len(self.coefficients) + 4) * torch.finfo(self.dtype).eps * terms

    def _largest_precisions(self) -> Tensor:
        """(D,): the largest diagonal entry of the precision matrices in each dimension."""
        if self.common is not None:
            return self.common.diagonal()
        quadratic = self.coefficients[1 + self.dim :]
        if self.covariance_type == "full":
            quadratic = quadratic[diagonal_index(self.dim).to(quadratic.device)]
        return (-2 * quadratic.amin(1)).expand(self.dim)

    def chunks(self, points: Points) -> Iterator[tuple[Points, Tensor, Tensor, Tensor]]:
        """For chunk after chunk: its points, features (columns, n), logits (n, K) less a term common to all

        components, and that term (n,). Features and logits are overwritten by the next chunk.
        """
        columns, device = len(self.coefficients), self.coefficients.device
        size = min(chunk_rows(self.n_components, columns, device), max(1, len(points)))
        features = Features(self.covariance_type, self.dim, size, self.dtype, device)
        buffer = torch.empty(size, self.n_components, dtype=self.dtype, device=device)
        for start in range(0, len(points), size):
            chunk = points.rows(slice(start, start + size)).to(self.dtype)
            phi = features.of(chunk.x, chunk.variance)
            logits = buffer[: len(chunk)]
            if self.n_components <= _FEW_COMPONENTS and self.covariance_type == "full":
                logits.copy_(torch.mm(self.coefficients.t(), phi).t())
            else:
                torch.mm(phi.t(), self.coefficients, out=logits)
            yield chunk, phi, logits, self._common_term(chunk)

    def _common_term(self, chunk: Points) -> Tensor:
        if self.common is None:
            return chunk.x.new_zeros(len(chunk))
        term = ((chunk.x @ self.common) * chunk.x).sum(1)
        if chunk.variance is not None:
            term = term + chunk.variance @ self.common.diagonal()
        return -0.5 * self.beta * term


def dense_statistics(points: Points, scores: DenseScores, *, sparse: bool = False) -> Statistics:
    """Expected sufficient statistics of the points at the inverse temperature of `scores`, see `EStep`.

    Where points are Gaussians, the log-likelihood is its lower bound log sum_k w_k exp(E log N(z; mu_k, Sigma_k)).
    sparse: leave responsibilities below 1e-10 out of the sums, which saves half the time where nearly all of them are.
    """
    kind, k = scores.covariance_type, scores.n_components
    statistics = Statistics.zeros(kind, k, scores.dim, points.x.device)
    sums: Tensor | None = None
    sparse_sums = SparseSums(points, statistics, kind) if sparse else None
    first = pending = 0
    for chunk, phi, logits, common in scores.chunks(points):
        log_sum, total = normalise_(logits)
        statistics.totals[0] += (log_sum + common).double().sum() / scores.beta
        if kind == "tied":
            statistics.common.add_(packed_second_moment(chunk))
        first += len(chunk)
        if sparse_sums is not None and sparse_sums.take(first - len(chunk), logits, total):
            continue
        # The responsibilities of a point add up to 1 once either factor is divided: the one with fewer numbers.
        if k < len(phi):
            logits /= total[:, None]
        else:
            phi /= total
        if sums is None:
            # (columns, K): the transposed product is a third faster, as neither factor has to be transposed.
            sums = torch.zeros(statistics.sums.shape[::-1], dtype=scores.dtype, device=points.x.device)
        for rows in range(0, len(chunk), _ROWS_BETWEEN_SUMS):
            part = slice(rows, min(rows + _ROWS_BETWEEN_SUMS, len(chunk)))
            sums.addmm_(phi[:, part], logits[part])
            pending += part.stop - part.start
            if pending >= _ROWS_BETWEEN_SUMS:
                _add_transposed(statistics.sums, sums)
                sums.zero_()
                pending = 0
    if sparse_sums is not None:
        sparse_sums.add()
    if sums is not None:
        _add_transposed(statistics.sums, sums)
    statistics.totals[1] += len(points)
    return statistics


def _add_transposed(total: Tensor, part: Tensor) -> None:
    """Adds part (columns, K) to total (K, columns), a few rows at a time: torch copies the former to float64 first."""
    size = _CHUNK_ROWS[1] if total.device.type == "cpu" else len(total)
    for rows, columns in zip(total.split(size), part.split(size, dim=1), strict=True):
        rows += columns.t()


def packed_second_moment(points: Points) -> Tensor:
    """The packed float64 sum of x x^T + diag(variance), (P,)."""
    moment = (points.x.t() @ points.x).double()
    if points.variance is not None:
        moment.diagonal().add_(points.variance.double().sum(0))
    return pack(moment)


def hard_statistics(points: Points, labels: Tensor, covariance_type: str, centroids: Tensor) -> Statistics:
    """Statistics of points that belong wholly to component labels[i], labels: (n,) int64, about the centroids (K, D).

    The log-likelihood is 0.
    """
    k, dim = centroids.shape
    statistics = Statistics.zeros(covariance_type, k, dim, points.x.device, centroids.double())
    columns, device = 1 + dim + quadratic_columns(covariance_type, dim), points.x.device
    # Features in float64, and the points beside them.
    size = chunk_rows(1, columns, device) if device.type == "cpu" else chunk_rows(columns, 2 * columns, device)
    features = Features(covariance_type, dim, size, torch.float64, device)
    for start in range(0, len(points), size):
        rows = slice(start, start + size)
        chunk = points.rows(rows).to(torch.float64)
        chunk = Points(chunk.x - centroids[labels[rows]], chunk.variance)
        statistics.sums.index_add_(0, labels[rows], features.of(chunk.x, chunk.variance).t())
        if covariance_type == "tied":
            statistics.common.add_(packed_second_moment(chunk))
    statistics.totals[1] += len(points)
    return statistics


class DenseEStep:
    """The exact `EStep`. second_moment: (D,), mean square of all processes' points; products: see `Settings`."""

    def __init__(self, train: Points, held_out: Points | None, second_moment: Tensor, products: str) -> None:
        self._points = {"train": train} | ({} if held_out is None else {"held_out": held_out})
        self._second_moment, self._products = second_moment, products

    def see(self, points: Points) -> None:
        """Other training points, from the same standardisation."""
        self._points["train"] = points

    def _precise(self, name: str) -> Points:
        """The points in float64; kept so, as mixtures rarely become broader again."""
        self._points[name] = self._points[name].to(torch.float64)
        return self._points[name]

    def _statistics(self, name: str, parameters: Parameters, beta: float, sparse: bool) -> Statistics:
        scores = DenseScores.safe(parameters, self._second_moment, self._products, beta)
        if scores is None:
            return centred_statistics(self._precise(name), CentredScores(parameters), beta)
        points = self._points[name] if scores.dtype == torch.float32 else self._precise(name)
        return dense_statistics(points, scores, sparse=sparse)

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """See `EStep`."""
        return self._statistics("train", parameters, beta, sparse=False)

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """See `EStep`."""
        if "held_out" not in self._points:
            return torch.zeros(0, len(inflations), dtype=torch.float64, device=parameters.means.device)
        constants, dim = log_constants(parameters), parameters.dim
        found = [
            inflated_log_densities(logits, constants.to(logits.dtype), dim, inflations)
            for logits in self._held_out_log_densities(parameters)
        ]
        return torch.cat(found) if found else constants.new_zeros(0, len(inflations))

    def _held_out_log_densities(self, parameters: Parameters) -> Iterator[Tensor]:
        """log w_k + log N(x; mu_k, Sigma_k) of chunks of the held-out points, (n, K)."""
        scores = DenseScores.safe(parameters, self._second_moment, self._products)
        if scores is None:
            yield from (logits for _, logits in CentredScores(parameters).chunks(self._precise("held_out")))
        else:
            for _, _, logits, common in scores.chunks(self._points["held_out"]):
                yield logits.add_(common[:, None])

    def exact(self, name: str, parameters: Parameters, onto: Statistics | None = None) -> Statistics:
        """See `EStep`."""
        found = self._statistics(name, parameters, 1.0, sparse=True)
        return found if onto is None else onto.add_(found)

    def forget(self) -> None:
        """See `EStep`. An exact E-step keeps nothing."""

    def state(self) -> dict[str, Tensor]:
        """See `EStep`. An exact E-step has no state."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `EStep`."""
