"""Exact log-densities and statistics in float64, with the difference x - mu_k taken before it is squared.

Packed products lose what the square of a point's distance from the origin has beyond the variance of a component; here
nothing is lost wherever a point lies, at about four times the time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.mixture.em.e_step import Statistics
from trainer.mixture.em.pairs import Factors, add_block
from trainer.mixture.parameters import LOG_2PI, Parameters
from trainer.mixture.points import Points
from trainer.mixture.working_memory import numbers_at_a_time

# Numbers in the differences of a chunk of points from a block of components: a few MB, which a cache holds. Above 32 MB
# the C library also gives memory back each time, and clearing it anew costs several times the arithmetic.
DIFFERENCES = 500_000
# In the unpacked matrices of such a block.
_MATRIX_NUMBERS = 1_000_000
# Points of a chunk; the lower number is for many dimensions.
_CHUNK_ROWS = (256, 2048)


def chunk_rows(dim: int) -> int:
    """Points whose differences from one component are held at one time on a CPU."""
    low, high = _CHUNK_ROWS
    return min(max(DIFFERENCES // dim, low), high)


def weighted_log_densities(x: Tensor, parameters: Parameters) -> Tensor:
    """log w_k + log N(x; mu_k, Sigma_k) for points x (n, D) in float64, differentiable. Returns (n, K)."""
    kind, dim, means = parameters.covariance_type, parameters.dim, parameters.means
    log_weights = parameters.weights.log()
    if kind in ("diag", "spherical"):
        std = parameters.covariances.sqrt()  # (K, D) or (K, 1)
        log_det = 2 * std.log().expand(-1, dim).sum(1)
        squares = [((x[:, None] - means[block]) / std[block]).square().sum(2) for block in _blocks(parameters, len(x))]
        return log_weights - 0.5 * (dim * LOG_2PI + log_det + torch.cat(squares, 1))
    columns = []
    common = parameters.whitening(slice(0, 1)) if kind == "tied" else None
    for block in _blocks(parameters, len(x)):
        white, log_det = parameters.whitening(block) if common is None else common  # (b, D, D) and (b,); tied (1, ...)
        centred = x - means[block, None]  # (b, n, D)
        distances = (centred @ white.mT).square().sum(2)  # (b, n)
        columns.append(log_weights[block, None] - 0.5 * (dim * LOG_2PI + log_det[:, None] + distances))
    return torch.cat(columns).t()


def _blocks(parameters: Parameters, count: int) -> list[slice]:
    numbers = numbers_at_a_time(DIFFERENCES, parameters.means.device)
    matrices = numbers_at_a_time(_MATRIX_NUMBERS, parameters.means.device)
    size = max(1, min(numbers // max(1, count * parameters.dim), matrices // parameters.dim**2))
    return [slice(start, start + size) for start in range(0, parameters.n_components, size)]


class CentredScores:
    """log w_k + log N(x; mu_k, Sigma_k) of chunks of points, or its expectation where points are Gaussians."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters, self.factors = parameters, Factors.of(parameters, torch.float64)

    def chunks(self, points: Points) -> Iterator[tuple[Points, Tensor]]:
        """Chunk after chunk of the points, in float64, and their log-densities (n, K)."""
        numbers = numbers_at_a_time(0, self.parameters.means.device)
        k, dim = self.parameters.n_components, self.parameters.dim
        size = max(chunk_rows(dim), numbers // (4 * (k + dim)))
        for start in range(0, len(points), size):
            chunk = points.rows(slice(start, start + size)).to(torch.float64)
            yield chunk, self._log_densities(chunk)

    def _log_densities(self, chunk: Points) -> Tensor:
        logits = chunk.x.new_empty(len(chunk), self.parameters.n_components)
        for components, block in self.blocks(chunk):
            squares = self.factors.squares(components, block)  # (b, n)
            logits[:, components] = (self.factors.constants[components, None] - 0.5 * squares).t()
        return logits

    def blocks(self, chunk: Points) -> Iterator[tuple[Tensor, Points]]:
        """Components (b,), and the points beside each of them: (b, n, D)."""
        k, dim = self.parameters.n_components, self.parameters.dim
        every = torch.arange(k, device=chunk.x.device)
        numbers = numbers_at_a_time(DIFFERENCES, chunk.x.device)
        for components in every.split(max(1, numbers // (max(1, len(chunk)) * dim))):
            shape = (len(components), -1, -1)
            variance = None if chunk.variance is None else chunk.variance.expand(shape)
            yield components, Points(chunk.x.expand(shape), variance)


def centred_statistics(points: Points, scores: CentredScores, beta: float = 1.0) -> Statistics:
    """Expected sufficient statistics of the points at inverse temperature beta, about the means, see `EStep`."""
    parameters = scores.parameters
    kind, k, origins = parameters.covariance_type, parameters.n_components, parameters.means
    statistics = Statistics.zeros(kind, k, parameters.dim, origins.device, origins)
    for chunk, logits in scores.chunks(points):
        logits *= beta
        log_sum = torch.logsumexp(logits, 1)
        statistics.totals[0] += log_sum.sum() / beta
        shares = logits.sub_(log_sum[:, None]).exp_().t()  # (K, n)
        for components, block in scores.blocks(chunk):
            add_block(statistics, kind, components, shares[components], block)
    statistics.totals[1] += len(points)
    return statistics
