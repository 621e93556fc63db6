"""A larger mixture from a smaller one, to start a fit from."""

from dataclasses import replace

import torch

from trainer.mixture.em.m_step import reseed
from trainer.mixture.parameters import Parameters


def grown(parameters: Parameters, k: int) -> Parameters:
    """A mixture of `k` components that stands near `parameters`: the heaviest components are split, see `reseed`.

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
    # A weight is a count for this purpose, scaled so that no real component looks starved.
    return reseed(wide, (weights > 0).double())
