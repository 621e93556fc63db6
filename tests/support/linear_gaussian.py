"""A variational auto-encoder whose marginal likelihood is known exactly.

x = W z + b + sigma * noise with z ~ N(0, I) is a Gaussian, N(b, W W^T + sigma^2 I), and its posterior is one too
(probabilistic principal components, Tipping and Bishop 1999), so every bound can be held against the truth.
"""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from trainer.networks.model import Likelihood, Posterior


class LinearGaussian:
    """shape: (C, H, W); variance: sigma^2; stretch: factor on the true posterior's standard deviation, 1 for the best
    diagonal posterior."""

    def __init__(
        self, shape: tuple[int, int, int], latent_dim: int, *, variance: float, stretch: float = 1.0, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        d = shape[0] * shape[1] * shape[2]
        # Orthogonal columns make the true posterior diagonal, so that the encoder can reach it.
        basis = torch.linalg.qr(torch.randn(d, latent_dim, generator=generator).double())[0]
        self.scale = torch.linspace(0.2, 0.6, latent_dim).double()
        self.weight = basis * self.scale  # (d, D)
        self.offset = torch.full((d,), 0.5).double()
        self.shape, self.latent_dim, self.variance, self.stretch = shape, latent_dim, variance, stretch

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n images, (n, C, H, W)."""
        z = torch.randn(n, self.latent_dim, generator=generator).double()
        noise = torch.randn(n, len(self.offset), generator=generator).double()
        return (self.offset + z @ self.weight.T + noise * self.variance**0.5).reshape(n, *self.shape)

    def encode(self, x: Tensor) -> Posterior:
        precision = 1 + self.scale.square() / self.variance  # (D,), of the true posterior
        mean = (x.double().flatten(1) - self.offset) @ self.weight / self.variance / precision
        return Posterior(mean, (precision.rsqrt() * self.stretch).expand_as(mean))

    def decode(self, z: Tensor) -> Likelihood:
        mean = (self.offset + z.double() @ self.weight.T).reshape(-1, *self.shape)
        return Likelihood(mean, torch.tensor([self.variance], dtype=torch.float64))

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x), exactly, (B,)."""
        d = len(self.offset)
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(d).double()
        return MultivariateNormal(self.offset, covariance).log_prob(x.double().flatten(1))
