"""Splitting heavy components: for those that lost their points, and to grow a mixture."""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.mixture.packed import unpack
from trainer.mixture.parameters import Parameters

# A component with fewer expected points than this is replaced. Far below any real count, far above rounding.
_FEWEST_POINTS = 1e-3


def reseed(parameters: Parameters, counts: Tensor) -> Parameters:
    """Replaces every component without points by half of a heavy one. counts: (K,), expected points of each.

    The component with the fewest points (below 1e-3) joins the one with the largest weight: both keep its covariance
    and half its weight, and their means move half a standard deviation apart each way along its longest axis. The rule
    needs no points, so every process arrives at the same parameters.
    """
    empty = (counts < _FEWEST_POINTS).nonzero()[:, 0].tolist()
    if not empty:
        return parameters
    weights, means, covariances = parameters.weights.clone(), parameters.means.clone(), parameters.covariances.clone()
    for index in empty:
        heaviest = int(weights.argmax())
        if parameters.covariance_type != "tied":
            covariances[index] = covariances[heaviest]
        step = 0.5 * _longest_axis(parameters.covariance_type, covariances, heaviest, parameters.dim)
        means[index] = means[heaviest] + step
        means[heaviest] -= step
        weights[index] = weights[heaviest] = weights[heaviest] / 2
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
