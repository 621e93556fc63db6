"""A mixture as a density in torch: exact log-densities in float64, gradients, and samples.

No packed products decide a score, so that nearly singular mixtures and points that need gradients are served as well.
"""

import torch
from torch import Tensor

from trainer.mixture.em.dense import DenseScores
from trainer.mixture.em.pairs import Factors, Pairs
from trainer.mixture.parameters import LOG_2PI, Parameters
from trainer.mixture.points import Points, matrix

# Numbers in the largest intermediate tensor.
_CHUNK_NUMBERS = 16_000_000
# Components whose density is below exp(-32) of the best one's add less than 2e-10 nats, even 10,000 of them.
_NEGLIGIBLE = 32.0
# With fewer components than this, computing all of them is faster.
_FEWEST_TO_PRUNE = 64
_PRUNED_ROWS = 8192


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


class MixtureDensity:
    """q(z) = sum_k w_k N(z; mu_k, Sigma_k) of known parameters, equation 12.

    Points may lie on any device; results are on that of the parameters. Packed products find the components that matter
    to a point, whose densities are then computed exactly. Points that need gradients, and mixtures of few components,
    are computed against every component.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._bounds: DenseScores | None = None
        self._location = parameters.weights @ parameters.means  # (D,), subtracted before packed products

    @property
    def weights(self) -> Tensor:
        """(K,) float64, summing to 1."""
        return self.parameters.weights

    @property
    def means(self) -> Tensor:
        """(K, D) float64."""
        return self.parameters.means

    @property
    def covariances(self) -> Tensor:
        """In scikit-learn's shapes: full (K, D, D), tied (D, D), diag (K, D), spherical (K,); float64."""
        return self.parameters.expanded_covariances()

    def score_samples(self, z: Tensor) -> Tensor:
        """log q(z) in nats for points z (n, D). Returns (n,) float64; gradients flow to z."""
        points = self._points(z)
        if not len(points):
            return points.sum(1)
        if points.requires_grad or self.parameters.n_components < _FEWEST_TO_PRUNE:
            size = max(256, _CHUNK_NUMBERS // max(self.parameters.n_components, self.parameters.dim))
            return torch.cat(
                [torch.logsumexp(weighted_log_densities(rows, self.parameters), 1) for rows in points.split(size)]
            )
        return torch.cat([self._pruned(rows - self._location) for rows in points.split(_PRUNED_ROWS)])

    def predict_proba(self, z: Tensor) -> Tensor:
        """Responsibilities (n, K) float64 of the components for points z (n, D)."""
        return weighted_log_densities(self._points(z), self.parameters).softmax(1)

    def predict(self, z: Tensor) -> Tensor:
        """The most responsible component of each point of z (n, D). Returns (n,) int64."""
        return weighted_log_densities(self._points(z), self.parameters).argmax(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws (n, D) float64, in random order of components. generator: on the CPU."""
        return self.sample_with_components(n, generator)[0]

    def sample_with_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The draws of `sample`, and the component (n,) int64 of each."""
        parameters, dim, device = self.parameters, self.parameters.dim, self.parameters.means.device
        if n == 0:
            return parameters.means[:0], torch.zeros(0, dtype=torch.int64, device=device)
        chosen = torch.multinomial(parameters.weights.cpu(), n, replacement=True, generator=generator)
        noise = torch.randn(n, dim, dtype=torch.float64, generator=generator).to(device)
        chosen = chosen.to(device)
        draws = parameters.means[chosen]  # (n, D)
        if parameters.covariance_type in ("diag", "spherical"):
            return (draws + parameters.covariances[chosen].sqrt() * noise), chosen
        if parameters.covariance_type == "tied":
            return (draws + noise @ parameters.cholesky(slice(0, 1))[0].t()), chosen
        for block in parameters.blocks():
            mine = ((chosen >= block.start) & (chosen < block.stop)).nonzero()[:, 0]
            cholesky = parameters.cholesky(block)
            for rows in mine.split(max(1, _CHUNK_NUMBERS // dim**2)):
                draws[rows] += (cholesky[chosen[rows] - block.start] @ noise[rows, :, None])[..., 0]
        return draws, chosen

    def _points(self, z: Tensor) -> Tensor:
        return matrix(z, "z", self.parameters.dim).to(self.parameters.means.device).double()

    def _pruned(self, x: Tensor) -> Tensor:
        """log q of centred points x (n, D)."""
        if self._bounds is None:
            centred = self.parameters.moved(1.0, -self._location)
            between = centred.weights @ centred.means.square()
            variances = centred.variances()
            within = centred.weights @ variances.expand(centred.n_components, -1)
            self._bounds = DenseScores.safe(centred, within + between)
            self._factors = Factors.of(centred, torch.float64)
        found = []
        first = 0
        for chunk, _, logits, _ in self._bounds.chunks(Points(x)):
            row, component = (logits > logits.amax(1, keepdim=True) - _NEGLIGIBLE).nonzero(as_tuple=True)
            found.append(torch.stack([row + first, component]))
            first += len(chunk)
        row, component = torch.cat(found, 1)
        scores = Pairs.of(row, component, self.parameters.n_components).scores(Points(x), self._factors)
        top = x.new_full((len(x),), -torch.inf).scatter_reduce_(0, row, scores, "amax")
        sums = x.new_zeros(len(x)).index_add_(0, row, (scores - top[row]).exp_())
        return top + sums.log()
