"""The M-step: parameters from sufficient statistics, with a ridge and shrinkage toward the pooled covariance.

Components without points are replaced by halves of heavy ones; the same splitting grows a mixture.
"""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.mixture.em.e_step import Statistics
from trainer.mixture.packed import diagonal_index, pack, unpack
from trainer.mixture.parameters import Parameters, ill_defined
from trainer.mixture.splitting import parts_of, splits


def m_step(statistics: Statistics, covariance_type: str, *, ridge: float, prior_strength: float) -> Parameters:
    """The maximum a posteriori parameters.

    Sigma_k = (S_k + nu v_k Psi) / (n_k + nu) + ridge I, where S_k is the scatter of component k about its mean, Psi the
    shape that the components have in common and v_k the size of component k, see `_common_shape`: shapes are shrunk,
    not sizes. nu = prior_strength = 0 is maximum likelihood. Tied covariances are pooled anyway.
    Components without points are replaced, see `reseed`. Raises InputError where a variance is 0. Overwrites the
    statistics, whose memory the covariances take.
    """
    sums, dim = statistics.sums, (statistics.sums.shape[1] - 1 if covariance_type == "tied" else None)
    dim = dim if dim is not None else _dimension(sums.shape[1], covariance_type)
    counts = sums[:, 0].clamp(min=torch.finfo(torch.float64).tiny)  # (K,)
    offsets = sums[:, 1 : 1 + dim] / counts[:, None]  # (K, D), means about the origins
    points = sums[:, 0].sum()
    weights = sums[:, 0] / points
    if covariance_type == "tied":
        between = (offsets.t() * counts) @ offsets
        covariances = (statistics.common - pack(between))[None] / points
    else:
        covariances = _shrunk(sums, counts, offsets, dim, covariance_type, prior_strength)
    if covariance_type in ("full", "tied"):
        covariances[:, diagonal_index(dim).to(covariances.device)] += ridge
    else:
        covariances += ridge
    means = offsets if statistics.origins is None else statistics.origins + offsets
    parameters = Parameters(covariance_type=covariance_type, weights=weights, means=means, covariances=covariances)
    parameters = reseed(parameters, sums[:, 0])
    if covariance_type in ("diag", "spherical") and not bool((parameters.covariances > 0).all()):
        raise ill_defined(int((parameters.covariances <= 0).any(1).sum()))
    return parameters


# Of a standard normal number, 99 % are above minus this.
_DEVIATIONS = 2.326


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


def _shrunk(sums: Tensor, counts: Tensor, offsets: Tensor, dim: int, covariance_type: str, nu: float) -> Tensor:
    """(S_k + nu Psi) / (n_k + nu) in the packed shape of `Parameters.covariances`, without the ridge."""
    scatter = sums[:, 1 + dim :]  # becomes S_k = sum r x x^T - n mu mu^T, about the origin
    if covariance_type == "full":
        start = 0
        for i in range(dim):
            row = scatter[:, start : start + dim - i]
            row.addcmul_((counts * offsets[:, i])[:, None], offsets[:, i:], value=-1)
            start += dim - i
    elif covariance_type == "diag":
        scatter -= counts[:, None] * offsets.square()
    else:
        scatter -= counts[:, None] * offsets.square().sum(1, keepdim=True)
        scatter /= dim
    if nu > 0:
        shape, sizes = _common_shape(scatter, counts, dim, covariance_type)
        return scatter.addcmul_(sizes[:, None], shape * nu).div_((counts + nu)[:, None])
    return scatter.div_(counts[:, None])


def _common_shape(scatter: Tensor, counts: Tensor, dim: int, covariance_type: str) -> tuple[Tensor, Tensor]:
    """Psi, packed, and the sizes v_k (K,) of components beside it, from the scatter matrices S_k.

    A pooled covariance sum_k S_k / (N - K) is that of the broadest components. Here each counts by its own size: Psi is
    proportional to sum_k S_k / v_k, and v_k = tr(S_k Psi^-1) / ((n_k - 1) D), in two rounds from Psi = I; n_k - 1 as
    the mean is fitted to the same points. A size has one pseudo-point of the mean size, which a component of a single
    point therefore has, but of no more than its own points allow: a broad component says little of narrow ones.
    """
    spare = (counts - 1).clamp(min=0)  # (K,)
    limit = _upper_limit((counts - 2).clamp(min=0) * dim)

    def sizes_beside(inverse: Tensor, directions: Tensor | int) -> Tensor:
        traces = scatter @ inverse / directions  # (K,), tr(S_k Psi^-1) / D
        mean = (traces.sum() / spare.sum().clamp(min=1)).expand_as(traces)
        own = torch.where(limit.isfinite(), traces / spare.clamp(min=1) * limit, mean)
        return (traces + torch.minimum(mean, own)) / (spare + 1)

    shape, inverse = None, _inverse_of_shape(None, scatter, dim, covariance_type)
    directions: Tensor | int = dim
    for _ in range(2):
        sizes = sizes_beside(inverse, directions)
        weights = torch.where(sizes > 0, 1 / sizes, 0)
        shape = weights @ scatter / spare.sum().clamp(min=1)  # of size 1
        inverse = _inverse_of_shape(shape, scatter, dim, covariance_type)
        directions = (shape @ inverse).clamp(min=1)  # tr(Psi Psi^-1), those in which Psi has something
    assert shape is not None
    return shape, sizes_beside(inverse, directions)


def _upper_limit(degrees: Tensor) -> Tensor:
    """By which factor a variance of so many degrees of freedom (K,) may be too small: its upper limit at 99 %.

    Degrees over the quantile of chi squared, in the approximation of Wilson and Hilferty (1931); infinite below 2.
    """
    part = 2 / (9 * degrees.clamp(min=1))
    root = 1 - part - _DEVIATIONS * part.sqrt()
    return torch.where((root > 0) & (degrees >= 2), root**-3, torch.inf)


def _inverse_of_shape(shape: Tensor | None, scatter: Tensor, dim: int, covariance_type: str) -> Tensor:
    """What a packed S is multiplied by for tr(S Psi^-1): twice the entries off the diagonal. None is Psi = I.

    Directions in which Psi has nothing, such as columns that are constant, count for nothing.
    """
    if covariance_type != "full":
        inverse = (
            torch.ones(scatter.shape[1], dtype=scatter.dtype, device=scatter.device) if shape is None else 1 / shape
        )
        inverse = torch.where(torch.isfinite(inverse), inverse, 0)
        return inverse * (dim / scatter.shape[1])
    identity = torch.eye(dim, dtype=scatter.dtype, device=scatter.device)
    full = identity if shape is None else torch.linalg.pinv(unpack(shape, dim), rtol=1e-12, hermitian=True)
    doubled = pack(2 * full)
    doubled[diagonal_index(dim).to(scatter.device)] /= 2
    return doubled


# A component with fewer expected points than this is replaced. Far below any real count, far above rounding.
_FEWEST_POINTS = 1e-3


def reseed(parameters: Parameters, counts: Tensor, fewest: float = _FEWEST_POINTS) -> Parameters:
    """Replaces every component of fewer than `fewest` points by a part of a heavy one. counts: (K,), expected points.

    A component of m such parts keeps its covariance; it and they have equal weights, and means at equal distances along
    its longest axis, from half a standard deviation before its mean to half behind. The rule needs no points, so every
    process arrives at the same parameters. Overwrites the covariances.
    """
    empty = (counts < fewest).nonzero()[:, 0].tolist()
    if not empty:
        return parameters
    weights, means, covariances = parameters.weights.clone(), parameters.means.clone(), parameters.covariances
    alive = weights.where(counts >= fewest, 0.0)
    for donor, places in parts_of(splits(alive.tolist(), len(empty)), empty):
        every = [donor, *places]
        if parameters.covariance_type != "tied":
            covariances[places] = covariances[donor].clone()
        axis = _longest_axis(parameters.covariance_type, covariances, donor, parameters.dim)
        offsets = torch.linspace(-0.5, 0.5, len(every), dtype=axis.dtype, device=axis.device)
        means[every] = means[donor].clone() + offsets[:, None] * axis
        weights[every] = weights[donor] / len(every)
    return replace(parameters, weights=weights / weights.sum(), means=means, covariances=covariances)


def grow(parameters: Parameters, k: int) -> Parameters:
    """A mixture of `k` components close to `parameters`: the heaviest components are split, see `reseed`.

    Raises ValueError where `k` is smaller than the number of components.
    """
    more = k - parameters.n_components
    if more < 0:
        raise ValueError(f"a mixture of {parameters.n_components} components cannot grow to {k}")
    weights = torch.cat([parameters.weights, parameters.weights.new_zeros(more)])
    means = torch.cat([parameters.means, parameters.means[:1].expand(more, -1)])
    covariances = parameters.covariances
    if parameters.covariance_type != "tied":
        covariances = torch.cat([covariances, covariances[:1].expand(more, -1)])
    wide = replace(parameters, weights=weights, means=means, covariances=covariances)
    # The new components count as empty, all others as having points.
    return reseed(wide, (weights > 0).double())


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
