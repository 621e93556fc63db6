"""The exact E-step: every point against every component, a chunk of points at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainer.mixture.expectation import inflated_log_sums, normalise_
from trainer.mixture.packed import features, pack
from trainer.mixture.parameters import Parameters, coefficients, common_precision, log_constants
from trainer.mixture.points import Points
from trainer.mixture.statistics import Statistics

# Float32 carries a relative error of about 1e-7 into terms as large as precision times second moment.
FLOAT32_LIMIT = 1e4
# Features and responsibilities of a chunk stay in the cache where they can; products want chunks not too short.
_CHUNK_NUMBERS = 1_000_000
_CHUNK_ROWS = (384, 512)
# Rows summed in the format of the products before they join the float64 sums.
_ROWS_BETWEEN_SUMS = 4096


def chunk_rows(n_components: int) -> int:
    """Points whose responsibilities are held at one time."""
    low, high = _CHUNK_ROWS
    return min(max(_CHUNK_NUMBERS // n_components, low), high)


def product_dtype(parameters: Parameters, second_moment: Tensor, products: str = "auto") -> torch.dtype:
    """The number format of packed products: as asked, or float32 where they stay exact to about 1e-2 nats.

    second_moment: (D,), mean square of the (centred) points in each dimension.
    """
    if products != "auto":
        return torch.float32 if products == "float32" else torch.float64
    largest = largest_precisions(parameters)
    return torch.float32 if float((largest * second_moment).max()) < FLOAT32_LIMIT else torch.float64


def largest_precisions(parameters: Parameters) -> Tensor:
    """(D,): the largest diagonal entry of the precision matrices in each dimension."""
    if parameters.covariance_type in ("diag", "spherical"):
        return (1 / parameters.covariances).amax(0).expand(parameters.dim)
    blocks = [slice(0, 1)] if parameters.covariance_type == "tied" else parameters.blocks()
    # The diagonal of W^T W is the sum of squares of W's columns.
    return torch.stack([parameters.whitening(block)[0].square().sum(1).amax(0) for block in blocks]).amax(0)


class DenseScores:
    """log w_k + log N(x; mu_k, Sigma_k) of chunks of points, in packed form."""

    def __init__(self, parameters: Parameters, dtype: torch.dtype, beta: float = 1.0) -> None:
        self.covariance_type, self.dtype, self.beta = parameters.covariance_type, dtype, beta
        # (columns, K), so that no product has to transpose its second factor.
        self.coefficients = coefficients(parameters, dtype).t().contiguous()
        if beta != 1:
            self.coefficients *= beta
        self.common = common_precision(parameters).to(dtype) if parameters.covariance_type == "tied" else None
        size = chunk_rows(parameters.n_components)
        self._buffer = torch.empty(size, parameters.n_components, dtype=dtype, device=self.coefficients.device)

    def chunks(self, points: Points) -> Iterator[tuple[Points, Tensor, Tensor, Tensor]]:
        """For chunk after chunk: its points, features (columns, n), logits (n, K) less a term common to all

        components, and that term (n,). The logits are overwritten by the next chunk.
        """
        size = len(self._buffer)
        for start in range(0, len(points), size):
            chunk = points.rows(slice(start, start + size)).to(self.dtype)
            phi = features(chunk.x, chunk.variance, self.covariance_type)
            logits = torch.mm(phi.t(), self.coefficients, out=self._buffer[: len(chunk)])
            yield chunk, phi, logits, self._common_term(chunk)

    def _common_term(self, chunk: Points) -> Tensor:
        if self.common is None:
            return chunk.x.new_zeros(len(chunk))
        term = ((chunk.x @ self.common) * chunk.x).sum(1)
        if chunk.variance is not None:
            term = term + chunk.variance @ self.common.diagonal()
        return -0.5 * self.beta * term


def e_step(points: Points, parameters: Parameters, *, dtype: torch.dtype, beta: float = 1.0) -> Statistics:
    """Expected sufficient statistics of the points at inverse temperature beta, see `Expectation.statistics`.

    Where points are Gaussians, the log-likelihood is its lower bound log sum_k w_k exp(E log N(z; mu_k, Sigma_k)).
    """
    kind, k = parameters.covariance_type, parameters.n_components
    statistics = Statistics.zeros(kind, k, parameters.dim, points.x.device)
    # (columns, K): the transposed product is a third faster, as neither factor has to be transposed.
    sums = torch.zeros(statistics.sums.shape[::-1], dtype=dtype, device=points.x.device)
    pending = 0
    for chunk, phi, logits, common in DenseScores(parameters, dtype, beta).chunks(points):
        log_sum, total = normalise_(logits)
        statistics.totals[0] += (log_sum + common).double().sum() / beta
        phi /= total  # normalises the responsibilities at the cost of the features, not of n x K numbers
        sums.addmm_(phi, logits)
        pending += len(chunk)
        if pending >= _ROWS_BETWEEN_SUMS:
            statistics.sums.add_(sums.t())
            sums.zero_()
            pending = 0
        if kind == "tied":
            statistics.common.add_(packed_second_moment(chunk))
    statistics.sums.add_(sums.t())
    statistics.totals[1] += len(points)
    return statistics


def packed_second_moment(points: Points) -> Tensor:
    """The packed float64 sum of x x^T + diag(variance), (P,)."""
    moment = (points.x.t() @ points.x).double()
    if points.variance is not None:
        moment.diagonal().add_(points.variance.double().sum(0))
    return pack(moment)


def hard_statistics(points: Points, labels: Tensor, covariance_type: str, k: int) -> Statistics:
    """Statistics of points that belong wholly to component labels[i], labels: (n,) int64. The log-likelihood is 0."""
    statistics = Statistics.zeros(covariance_type, k, points.x.shape[1], points.x.device)
    for start in range(0, len(points), _CHUNK_ROWS[1]):
        rows = slice(start, start + _CHUNK_ROWS[1])
        chunk = points.rows(rows).to(torch.float64)
        statistics.sums.index_add_(0, labels[rows], features(chunk.x, chunk.variance, covariance_type).t())
        if covariance_type == "tied":
            statistics.common.add_(packed_second_moment(chunk))
    statistics.totals[1] += len(points)
    return statistics


class Exact:
    """The exact `Expectation`. second_moment: (D,), mean square of all processes' points; products: see `Settings`."""

    def __init__(self, train: Points, held_out: Points | None, second_moment: Tensor, products: str) -> None:
        self._train, self._held_out = train, held_out
        self._second_moment, self._products = second_moment, products

    def _dtype(self, parameters: Parameters) -> torch.dtype:
        return product_dtype(parameters, self._second_moment, self._products)

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """See `Expectation`."""
        return e_step(self._train, parameters, dtype=self._dtype(parameters), beta=beta)

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """See `Expectation`."""
        sums = torch.zeros(len(inflations) + 1, dtype=torch.float64, device=parameters.means.device)
        if self._held_out is None:
            return sums
        constants = log_constants(parameters)
        scores = DenseScores(parameters, self._dtype(parameters))
        for chunk, _, logits, common in scores.chunks(self._held_out):
            if len(inflations) == 1 and inflations[0] == 1:
                sums[0] += (normalise_(logits)[0] + common).double().sum()
            else:
                logits += common[:, None]
                sums[:-1] += inflated_log_sums(logits, constants.to(logits.dtype), parameters.dim, inflations)
            sums[-1] += len(chunk)
        return sums

    def state(self) -> dict[str, Tensor]:
        """See `Expectation`. An exact E-step remembers nothing."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `Expectation`."""
