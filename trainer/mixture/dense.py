"""The exact E-step: every point against every component, a chunk of points at a time."""

import torch
from torch import Tensor

from trainer.mixture.packed import features, pack
from trainer.mixture.parameters import Parameters, coefficients, common_precision
from trainer.mixture.statistics import Statistics

# exp of an argument that underflows costs ten times one that does not, and nearly all arguments would underflow.
_LOWEST_EXPONENT = -80.0
# Float32 carries a relative error of about 1e-7 into terms as large as precision times second moment.
_FLOAT32_LIMIT = 1e4
# The chunk of responsibilities stays in the cache where it can; the sums want chunks that are not too short.
_CHUNK_NUMBERS = 1_000_000
_CHUNK_ROWS = (384, 2048)
# Rows summed in the format of the products before they join the float64 sums.
_ROWS_BETWEEN_SUMS = 4096


def chunk_rows(n_components: int) -> int:
    """Points whose responsibilities are held at one time."""
    low, high = _CHUNK_ROWS
    return min(max(_CHUNK_NUMBERS // n_components, low), high)


def product_dtype(parameters: Parameters, second_moment: Tensor) -> torch.dtype:
    """float32 where packed products stay exact to about 1e-2 nats, else float64.

    second_moment: (D,), mean square of the (centred) points in each dimension.
    """
    if parameters.covariance_type in ("diag", "spherical"):
        precision = (1 / parameters.covariances).amax(0).expand(parameters.dim)
    else:
        # The largest precision along any direction bounds the diagonal of the inverse.
        blocks = [slice(0, 1)] if parameters.covariance_type == "tied" else parameters.blocks()
        diagonals = [torch.cholesky_inverse(parameters.cholesky(b)).diagonal(dim1=-2, dim2=-1).amax(0) for b in blocks]
        precision = torch.stack(diagonals).amax(0)
    return torch.float32 if float((precision * second_moment).max()) < _FLOAT32_LIMIT else torch.float64


class DenseScores:
    """log w_k + log N(x; mu_k, Sigma_k) of chunks of points, in packed form."""

    def __init__(self, parameters: Parameters, dtype: torch.dtype, beta: float = 1.0) -> None:
        self.covariance_type, self.beta = parameters.covariance_type, beta
        self.rows = coefficients(parameters, dtype)  # (K, columns)
        if beta != 1:
            self.rows *= beta
        self.common = common_precision(parameters).to(dtype) if parameters.covariance_type == "tied" else None

    def __call__(
        self, phi: Tensor, x: Tensor, variance: Tensor | None, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """phi: (columns, n), x: (n, D). Returns (n, K) logits less a term common to all components, and that term."""
        logits = torch.mm(phi.t(), self.rows.t(), out=out)
        if self.common is None:
            return logits, logits.new_zeros(len(x))
        common = ((x @ self.common) * x).sum(1)
        if variance is not None:
            common = common + variance @ self.common.diagonal()
        return logits, -0.5 * self.beta * common


def normalise_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces logits (n, K) by exp(logits - max) and returns max + log(sum) and sum, (n,) each."""
    top = logits.amax(1)
    total = logits.sub_(top[:, None]).clamp_(min=_LOWEST_EXPONENT).exp_().sum(1)
    return top + total.log(), total


def e_step(
    x: Tensor, variance: Tensor | None, parameters: Parameters, *, dtype: torch.dtype, beta: float = 1.0
) -> Statistics:
    """Expected sufficient statistics of points x (n, D) at inverse temperature beta.

    variance: (n, D), where a point is the Gaussian N(x, diag(variance)), or None. The log-likelihood in the totals is
    1 / beta times the log of the sum of the beta-th powers: at beta = 1, log q(x), or its lower bound
    log sum_k w_k exp(E log N(z; mu_k, Sigma_k)) where points are Gaussians.
    """
    count, dim = x.shape
    kind, k = parameters.covariance_type, parameters.n_components
    statistics = Statistics.zeros(kind, k, dim, x.device)
    scores = DenseScores(parameters, dtype, beta)
    size = chunk_rows(k)
    columns = statistics.sums.shape[1]
    logits_buffer = torch.empty(size, k, dtype=dtype, device=x.device)
    sums = torch.zeros(k, columns, dtype=dtype, device=x.device)
    pending = 0
    for start in range(0, count, size):
        points = x[start : start + size].to(dtype)
        spread = None if variance is None else variance[start : start + size].to(dtype)
        phi = features(points, spread, kind)  # (columns, n)
        logits, common = scores(phi, points, spread, out=logits_buffer[: len(points)])
        log_sum, total = normalise_(logits)
        statistics.totals[0] += (log_sum + common).double().sum() / beta
        phi /= total  # normalises the responsibilities at the cost of the features, not of N x K numbers
        sums.addmm_(logits.t(), phi.t())
        pending += len(points)
        if pending >= _ROWS_BETWEEN_SUMS:
            statistics.sums.add_(sums)
            sums.zero_()
            pending = 0
        if kind == "tied":
            statistics.common.add_(_second_moment(points, spread))
    statistics.sums.add_(sums)
    statistics.totals[1] += count
    return statistics


def _second_moment(x: Tensor, variance: Tensor | None) -> Tensor:
    """The packed float64 sum of x x^T + diag(variance), (P,)."""
    moment = (x.t() @ x).double()
    if variance is not None:
        moment.diagonal().add_(variance.double().sum(0))
    return pack(moment)


def hard_statistics(x: Tensor, variance: Tensor | None, labels: Tensor, covariance_type: str, k: int) -> Statistics:
    """Statistics of points that belong wholly to component labels[i], labels: (n,) int64. The log-likelihood is 0."""
    statistics = Statistics.zeros(covariance_type, k, x.shape[1], x.device)
    for start in range(0, len(x), _CHUNK_ROWS[1]):
        rows = slice(start, start + _CHUNK_ROWS[1])
        points = x[rows].double()
        spread = None if variance is None else variance[rows].double()
        statistics.sums.index_add_(0, labels[rows], features(points, spread, covariance_type).t())
        if covariance_type == "tied":
            statistics.common.add_(_second_moment(points, spread))
    statistics.totals[1] += len(x)
    return statistics


def log_likelihoods(x: Tensor, variance: Tensor | None, parameters: Parameters, *, dtype: torch.dtype) -> Tensor:
    """log q(x) of points x (n, D) by packed products, (n,) float64."""
    scores = DenseScores(parameters, dtype)
    size = chunk_rows(parameters.n_components)
    values = torch.empty(len(x), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), size):
        points = x[start : start + size].to(dtype)
        spread = None if variance is None else variance[start : start + size].to(dtype)
        logits, common = scores(features(points, spread, parameters.covariance_type), points, spread)
        values[start : start + size] = (normalise_(logits)[0] + common).double()
    return values
