"""The M-step: parameters from sufficient statistics, with a ridge and shrinkage toward the pooled covariance."""

import torch
from torch import Tensor

from trainer.mixture.em.e_step import Statistics
from trainer.mixture.packed import diagonal_index, pack
from trainer.mixture.parameters import Parameters
from trainer.mixture.splitting import reseed


def m_step(statistics: Statistics, covariance_type: str, *, ridge: float, prior_strength: float) -> Parameters:
    """The maximum a posteriori parameters.

    Sigma_k = (S_k + nu Psi) / (n_k + nu) + ridge I, where S_k is the scatter of component k about its mean and Psi the
    pooled within-component covariance, sum_k S_k / (N - K): N - K is unbiased where N would make it too small, as every
    mean is fitted to its own points. nu = prior_strength = 0 is maximum likelihood. Tied covariances are pooled anyway.
    Components without points are replaced, see `reseed`. Overwrites the statistics, whose memory the covariances take.
    """
    sums, dim = statistics.sums, (statistics.sums.shape[1] - 1 if covariance_type == "tied" else None)
    dim = dim if dim is not None else _dimension(sums.shape[1], covariance_type)
    counts = sums[:, 0].clamp(min=torch.finfo(torch.float64).tiny)  # (K,)
    means = sums[:, 1 : 1 + dim] / counts[:, None]  # (K, D)
    points = sums[:, 0].sum()
    weights = sums[:, 0] / points
    if covariance_type == "tied":
        between = (means.t() * counts) @ means
        covariances = (statistics.common - pack(between))[None] / points
    else:
        covariances = _shrunk(sums, counts, means, dim, covariance_type, prior_strength)
    if covariance_type in ("full", "tied"):
        covariances[:, diagonal_index(dim).to(covariances.device)] += ridge
    else:
        covariances += ridge
    parameters = Parameters(covariance_type=covariance_type, weights=weights, means=means, covariances=covariances)
    return reseed(parameters, sums[:, 0])


def _dimension(columns: int, covariance_type: str) -> int:
    """D from the number of features."""
    if covariance_type == "diag":
        return (columns - 1) // 2
    if covariance_type == "spherical":
        return columns - 2
    dim = 0
    while 1 + dim + dim * (dim + 1) // 2 < columns:
        dim += 1
    return dim


def _shrunk(sums: Tensor, counts: Tensor, means: Tensor, dim: int, covariance_type: str, nu: float) -> Tensor:
    """(S_k + nu Psi) / (n_k + nu) in the packed shape of `Parameters.covariances`, without the ridge."""
    scatter = sums[:, 1 + dim :]  # becomes S_k = sum r x x^T - n mu mu^T
    if covariance_type == "full":
        start = 0
        for i in range(dim):
            scatter[:, start : start + dim - i] -= (counts * means[:, i])[:, None] * means[:, i:]
            start += dim - i
    elif covariance_type == "diag":
        scatter -= counts[:, None] * means.square()
    else:
        scatter -= counts[:, None] * means.square().sum(1, keepdim=True)
        scatter /= dim
    if nu > 0:
        spare = max(float(counts.sum()) - len(counts), 1.0)
        pooled = scatter.sum(0) / spare
        return scatter.add_(pooled * nu).div_((counts + nu)[:, None])
    return scatter.div_(counts[:, None])
