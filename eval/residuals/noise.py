"""The noise of an image given its latents, with correlated pixels: N(0, S(z) C_k S(z)), k the component of z."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.residuals.covariance import FactorCovariance
from trainer.mixture.density import MixtureDensity
from trainer.networks.model import Likelihood


@dataclass(frozen=True, kw_only=True)
class CorrelatedNoise:
    """p(x|z) = N(g(z), S(z) (L L^T + D) S(z)) with S(z) = diag(sigma_k(z))."""

    covariances: tuple[FactorCovariance, ...]
    """One, or one a component of the mixture, on the device of the networks."""
    mixture: MixtureDensity | None
    """Whose component of z chooses the covariance; None where there is one."""
    digest: str
    """Address of the fit, see `eval.residuals.stored`."""
    cap: float
    """The largest log p(x|z) that any image can have, nats."""

    def by_component(self, z: Tensor) -> Iterator[tuple[Tensor, int]]:
        """The rows (m,) int64 of latents (B, D) that share a covariance, and its place in `covariances`."""
        if self.mixture is None:
            yield torch.arange(len(z), device=z.device), 0
            return
        component = self.mixture.predict(z).to(z.device)
        for k in component.unique().tolist():
            yield (component == k).nonzero()[:, 0], k

    def log_likelihood(self, x: Tensor, z: Tensor, output: Likelihood) -> Tensor:
        """log p(x|z) of images (B, C, H, W) in [0, 1] with `output` the decoded z. Returns (B,) float64 nats."""
        u, std = standardised(x, output)
        result = -std.log().sum(1)
        for rows, k in self.by_component(z):
            result[rows] += self.covariances[k].log_density(u[rows])
        return result

    def variance(self, z: Tensor, output: Likelihood) -> Tensor:
        """The variance of each pixel, of the shape of images, (B, C, H, W) float64."""
        variance = output.variance.double().expand_as(output.mean).clone()
        for rows, k in self.by_component(z):
            variance[rows] *= self.covariances[k].variance.view(output.mean.shape[1:])
        return variance

    def draw(self, z: Tensor, output: Likelihood, generator: torch.Generator) -> Tensor:
        """One residual x - g(z) for each latent, (B, C, H, W) float64.

        An image g(z) + residual is one that the likelihood expects. It is no better sample: its Frechet distance is
        larger than that of g(z).
        """
        drawn = torch.empty(output.mean.shape, dtype=torch.float64, device=output.mean.device)
        for rows, k in self.by_component(z):
            drawn[rows] = self.covariances[k].draw(len(rows), generator).view(-1, *output.mean.shape[1:])
        return drawn * output.variance.double().sqrt()


def standardised(x: Tensor, output: Likelihood) -> tuple[Tensor, Tensor]:
    """Residuals (x - g) / sigma and sigma, (B, d) float64 each."""
    std = output.variance.double().sqrt().expand_as(output.mean).flatten(1)
    return (x.double() - output.mean.double()).flatten(1) / std, std
