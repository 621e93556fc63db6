"""Exact log-densities in float64 without packed products: for final scores, gradients and nearly singular mixtures."""

import torch
from torch import Tensor

from trainer.mixture.em.dense import DenseScores
from trainer.mixture.em.pairs import Factors, Pairs
from trainer.mixture.parameters import LOG_2PI, Parameters
from trainer.mixture.points import Points

# Numbers in the largest intermediate tensor.
_CHUNK_NUMBERS = 16_000_000
# Components whose density is below exp(-32) of the best one's add less than 2e-10 nats, even 10,000 of them.
_NEGLIGIBLE = 32.0
# With fewer components than this the direct way is faster.
_FEWEST_TO_SCREEN = 64
_SCREENED_ROWS = 8192


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
    for block in _blocks(parameters, len(x)):
        white, log_det = parameters.whitening(block)  # (b, D, D) and (b,); b = 1 for tied
        centred = x - means[block, None]  # (b, n, D)
        distances = (centred @ white.mT).square().sum(2)  # (b, n)
        columns.append(log_weights[block, None] - 0.5 * (dim * LOG_2PI + log_det[:, None] + distances))
    return torch.cat(columns).t()


def _blocks(parameters: Parameters, count: int) -> list[slice]:
    size = max(1, min(_CHUNK_NUMBERS // max(1, count * parameters.dim), 1_000_000 // parameters.dim**2))
    return [slice(start, start + size) for start in range(0, parameters.n_components, size)]


class Scorer:
    """log q(x) of one mixture, with what depends on the mixture alone computed once.

    Packed products find the components that matter to a point; their densities are then exact. Points that need
    gradients, and small mixtures, meet every component directly.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._screen: DenseScores | None = None
        self._location = parameters.weights @ parameters.means  # (D,), for products want centred points

    def score(self, x: Tensor) -> Tensor:
        """log q(x) in nats for points x (n, D). Returns (n,) float64."""
        points = x.double()
        if not len(points):
            return points.sum(1)
        if points.requires_grad or self.parameters.n_components < _FEWEST_TO_SCREEN:
            size = max(256, _CHUNK_NUMBERS // max(self.parameters.n_components, self.parameters.dim))
            return torch.cat(
                [torch.logsumexp(weighted_log_densities(rows, self.parameters), 1) for rows in points.split(size)]
            )
        return torch.cat([self._screened(rows - self._location) for rows in points.split(_SCREENED_ROWS)])

    def _screened(self, x: Tensor) -> Tensor:
        """log q of centred points x (n, D)."""
        if self._screen is None:
            centred = self.parameters.moved(1.0, -self._location)
            between = centred.weights @ centred.means.square()
            variances = centred.variances()
            within = centred.weights @ variances.expand(centred.n_components, -1)
            self._screen = DenseScores.safe(centred, within + between)
            self._factors = Factors.of(centred, torch.float64)
        found = []
        first = 0
        for chunk, _, logits, _ in self._screen.chunks(Points(x)):
            row, component = (logits > logits.amax(1, keepdim=True) - _NEGLIGIBLE).nonzero(as_tuple=True)
            found.append(torch.stack([row + first, component]))
            first += len(chunk)
        row, component = torch.cat(found, 1)
        scores = Pairs.of(row, component, self.parameters.n_components).scores(Points(x), self._factors)
        top = x.new_full((len(x),), -torch.inf).scatter_reduce_(0, row, scores, "amax")
        sums = x.new_zeros(len(x)).index_add_(0, row, (scores - top[row]).exp_())
        return top + sums.log()


def sample(parameters: Parameters, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n draws (n, D) float32, in random order of components. generator: on the CPU."""
    dim, device = parameters.dim, parameters.means.device
    chosen = torch.multinomial(parameters.weights.cpu(), n, replacement=True, generator=generator)
    noise = torch.randn(n, dim, dtype=torch.float64, generator=generator).to(device)
    chosen = chosen.to(device)
    draws = parameters.means[chosen]  # (n, D)
    if parameters.covariance_type in ("diag", "spherical"):
        return (draws + parameters.covariances[chosen].sqrt() * noise).float()
    if parameters.covariance_type == "tied":
        return (draws + noise @ parameters.cholesky(slice(0, 1))[0].t()).float()
    for block in parameters.blocks():
        mine = ((chosen >= block.start) & (chosen < block.stop)).nonzero()[:, 0]
        cholesky = parameters.cholesky(block)
        for rows in mine.split(max(1, _CHUNK_NUMBERS // dim**2)):
            draws[rows] += (cholesky[chosen[rows] - block.start] @ noise[rows, :, None])[..., 0]
    return draws.float()
