"""The flow: an invertible network with an exact density (Dinh et al. 2017)."""

import math

import torch
from torch import Tensor, nn

from trainer.full_precision import full_precision

# The logarithm of the largest factor of one layer on a latent; without a bound training may overflow.
_LOG_SCALE = 2.0


class Coupling(nn.Module):
    """Half of the latents scale and shift the other half: y = x * exp(s(kept)) + t(kept) where `mask` is 0."""

    mask: Tensor

    def __init__(self, mask: Tensor, width: int) -> None:
        """mask: (D,), 1 for the latents that are kept, 0 for those that are moved."""
        super().__init__()
        dim = len(mask)
        self.register_buffer("mask", mask)
        last = nn.Linear(width, 2 * dim)
        # The flow starts as the identity.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.network(kept * self.mask).chunk(2, dim=1)
        moved = 1 - self.mask
        return _LOG_SCALE * torch.tanh(scale / _LOG_SCALE) * moved, shift * moved

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x, (n, D), to (y, log |dy/dx|), (n, D) and (n,)."""
        log_scale, shift = self._scale_and_shift(x)
        return x * log_scale.exp() + shift, log_scale.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The x that `forward` maps to y, (n, D)."""
        log_scale, shift = self._scale_and_shift(y)
        return (y - shift) * (-log_scale).exp()


class LatentFlow(nn.Module):
    """A density over latents of D dimensions: codes are centred and scaled, then coupled `layers` times.

    dim: D, at least 2; layers: couplings, each with another random half of the latents kept, its complement in the
    next; width: of their two hidden layers.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, dim: int, *, layers: int = 8, width: int = 128, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        masks: list[Tensor] = []
        for layer in range(layers):
            chosen = (torch.randperm(dim, generator=generator) < dim // 2).float()
            masks.append(1 - masks[-1] if layer % 2 else chosen)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.couplings = nn.ModuleList(Coupling(mask, width) for mask in masks)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.centre)

    def set_scale(self, mean: Tensor, variance: Tensor) -> None:
        """Centres and scales by the mean and variance of the codes, (D,) each, before training."""
        self.centre.copy_(mean)
        self.spread.copy_(variance.sqrt())

    @full_precision()
    def score_samples(self, z: Tensor) -> Tensor:
        """Log-densities of latents (n, D) in nats, (n,)."""
        x = (z - self.centre) / self.spread
        log_det = -self.spread.log().sum()
        for coupling in self.couplings:
            x, gained = coupling(x)
            log_det = log_det + gained
        return log_det - 0.5 * (x.square().sum(1) + self.dim * math.log(2 * math.pi))

    @full_precision()
    @torch.no_grad()
    def transform(self, noise: Tensor) -> Tensor:
        """Latents (n, D) from standard normal noise (n, D)."""
        x = noise
        for coupling in reversed(self.couplings):
            x = coupling.inverse(x)  # type: ignore[operator]  # ModuleList forgets the class
        return x * self.spread + self.centre

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, D) float32. generator: on the CPU."""
        return self.transform(torch.randn(n, self.dim, generator=generator).to(self.centre.device))
