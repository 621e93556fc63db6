"""Points whose density is known: an exact mixture of 2000 anisotropic Gaussians on a smooth manifold.

The means lie on the image of a 10-D standard normal under a random two-layer network into 64-D; each covariance has
a random basis that leans toward the manifold's tangent space there, and log-normal eigenvalues. The truth is a
mixture, so its log-likelihood is computed exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.density import MixtureDensity
from trainer.mixture.parameters import Parameters

DIM, MANIFOLD_DIM, HIDDEN, COMPONENTS = 64, 10, 48, 2000


@dataclass(frozen=True)
class Data:
    """train: (n, 64) float32; held_out: (m, 64) float32; truth: the mixture that both were drawn from."""

    train: Tensor
    held_out: Tensor
    truth: MixtureDensity


def manifold_mixture(train: int = 50_000, held_out: int = 10_000, seed: int = 0) -> Data:
    """The recipe. Same seed, same points."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inner, bias, outer = (
        normal(HIDDEN, MANIFOLD_DIM) / MANIFOLD_DIM**0.5,
        normal(HIDDEN),
        normal(DIM, HIDDEN) / HIDDEN**0.5,
    )
    place = normal(COMPONENTS, MANIFOLD_DIM)
    active = 1.5 * place @ inner.t() + bias  # (K, HIDDEN)
    means = 1.2 * active.tanh() @ outer.t()  # (K, DIM)
    # d mean / d place, (K, DIM, MANIFOLD_DIM)
    tangent = torch.einsum("dh,kh,hm->kdm", outer, 1.8 * (1 - active.tanh().square()), inner)
    tangent = tangent / tangent.square().sum((1, 2), keepdim=True).sqrt()
    own = normal(COMPONENTS, DIM, DIM) / DIM**0.5 * (0.7 * normal(COMPONENTS, 1, DIM)).exp()
    width = (0.3 * normal(COMPONENTS, 1, 1)).exp()
    covariances = width * (3.0 * tangent @ tangent.transpose(1, 2) + 0.12 * own @ own.transpose(1, 2))
    covariances += 0.03 * torch.eye(DIM, dtype=torch.float64)
    weights = (0.5 * normal(COMPONENTS)).exp()
    truth = MixtureDensity(Parameters.of("full", weights / weights.sum(), means, covariances))
    points = truth.sample(train + held_out, generator).float()
    return Data(points[:train], points[train:], truth)
