"""The M-step: parameters from sufficient statistics, with a ridge and a pull toward the pooled covariance."""

import torch
from torch import Tensor

from trainer.mixture.em.packed import diagonal_index, pack, unpack
from trainer.mixture.em.statistics import Statistics
from trainer.mixture.parameters import Parameters

# A component with fewer expected points than this has starved. Far below any real count, far above rounding.
STARVED_COUNT = 1e-3


def maximise(statistics: Statistics, covariance_type: str, *, ridge: float, prior_strength: float) -> Parameters:
    """The maximum a posteriori parameters.

    Sigma_k = (S_k + nu Psi) / (n_k + nu) + ridge I, where S_k is the scatter of component k about its mean and Psi the
    pooled within-component covariance, sum_k S_k / (N - K): dividing by N would credit each component with the spread
    that its own mean took away. nu = prior_strength = 0 is maximum likelihood. Tied covariances pool anyway.
    Starved components are re-seeded, see `reseed`. The statistics are used up: their memory becomes the covariances.
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


def reseed(parameters: Parameters, counts: Tensor) -> Parameters:
    """Gives every starved component half of a heavy one.

    The rule: the component with the fewest points (below STARVED_COUNT) joins the one with the most; both keep its
    covariance and half its weight, and their means move half a standard deviation apart each way along its longest
    axis. It needs no points, so every process does the same.
    """
    starved = (counts < STARVED_COUNT).nonzero()[:, 0].tolist()
    if not starved:
        return parameters
    weights, means, covariances = parameters.weights.clone(), parameters.means.clone(), parameters.covariances.clone()
    for poor in starved:
        rich = int(weights.argmax())
        if parameters.covariance_type != "tied":
            covariances[poor] = covariances[rich]
        step = 0.5 * _longest_axis(parameters.covariance_type, covariances, rich, parameters.dim)
        means[poor] = means[rich] + step
        means[rich] -= step
        weights[poor] = weights[rich] = weights[rich] / 2
    return Parameters(
        covariance_type=parameters.covariance_type,
        weights=weights / weights.sum(),
        means=means,
        covariances=covariances,
    )


def _longest_axis(covariance_type: str, covariances: Tensor, index: int, dim: int) -> Tensor:
    """The longest axis (D,) of one component, one standard deviation long."""
    if covariance_type in ("full", "tied"):
        values, vectors = torch.linalg.eigh(unpack(covariances[0 if covariance_type == "tied" else index], dim))
        return vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    variances = covariances[index].expand(dim)
    axis = torch.zeros_like(variances)
    longest = int(variances.argmax())
    axis[longest] = variances[longest].sqrt()
    return axis
