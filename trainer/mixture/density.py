"""Exact log-densities in float64, without packed products: for final scores and nearly singular mixtures.

Differentiable with respect to the points.
"""

import torch
from torch import Tensor

from trainer.mixture.parameters import LOG_2PI, Parameters

# Numbers in the largest intermediate tensor.
_CHUNK_NUMBERS = 16_000_000


def weighted_log_densities(x: Tensor, parameters: Parameters) -> Tensor:
    """log w_k + log N(x; mu_k, Sigma_k) for points x (n, D) in float64. Returns (n, K)."""
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
    size = max(1, min(_CHUNK_NUMBERS // max(1, count * parameters.dim), 4_000_000 // parameters.dim**2))
    return [slice(start, start + size) for start in range(0, parameters.n_components, size)]


def score_samples(x: Tensor, parameters: Parameters) -> Tensor:
    """log q(x) in nats for points x (n, D). Returns (n,) float64."""
    size = max(256, _CHUNK_NUMBERS // max(parameters.n_components, parameters.dim))
    chunks = [torch.logsumexp(weighted_log_densities(rows.double(), parameters), 1) for rows in x.split(size)]
    return torch.cat(chunks) if chunks else x.new_zeros(0, dtype=torch.float64)


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
