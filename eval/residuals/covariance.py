"""Covariances L L^T + D of standardised residuals, one or one a component, and what follows from them in closed form.

A residual is u = (x - g(z)) / sigma(z), pixel by pixel, so the noise of an image is N(0, S (L L^T + D) S) with S =
diag(sigma(z)). With r columns in L every formula takes O(d r) memory; r = d holds any covariance. All in float64.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainer.objectives.gaussian import LOG_2PI


@dataclass(frozen=True, kw_only=True)
class FactorCovariance:
    """L L^T + D for residuals of d pixels."""

    factor: Tensor
    """L, (d, r)."""
    diagonal: Tensor
    """D, (d,), above 0."""

    @cached_property
    def _whitening(self) -> tuple[Tensor, Tensor]:
        """W, (r, d), and log det (L L^T + D), (): u^T (L L^T + D)^-1 u = u^T D^-1 u - |W u|^2 (Woodbury)."""
        scaled = self.factor / self.diagonal[:, None]  # D^-1 L
        inner = self.factor.mT @ scaled
        inner.diagonal().add_(1)
        cholesky = torch.linalg.cholesky(inner)  # I + L^T D^-1 L, (r, r)
        log_determinant = self.diagonal.log().sum() + 2 * cholesky.diagonal().log().sum()
        return torch.linalg.solve_triangular(cholesky, scaled.mT, upper=False), log_determinant

    @property
    def log_determinant(self) -> float:
        """log det (L L^T + D), nats."""
        return self._whitening[1].item()

    @property
    def variance(self) -> Tensor:
        """The diagonal of L L^T + D, (d,)."""
        return self.factor.square().sum(1) + self.diagonal

    @property
    def dense(self) -> Tensor:
        """L L^T + D, (d, d)."""
        return self.factor @ self.factor.mT + torch.diag(self.diagonal)

    def log_density(self, u: Tensor) -> Tensor:
        """log N(u; 0, L L^T + D) of residuals (n, d) float64, nats: (n,)."""
        W, log_determinant = self._whitening
        square = (u.square() / self.diagonal).sum(1) - (u @ W.mT).square().sum(1)
        return -0.5 * (square + log_determinant + len(self.diagonal) * LOG_2PI)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n residuals, (n, d). generator: on the CPU."""
        d, r = self.factor.shape
        noise = torch.randn(n, r + d, dtype=torch.float64, generator=generator).to(self.factor.device)
        return noise[:, :r] @ self.factor.mT + noise[:, r:] * self.diagonal.sqrt()

    def visible(self, pixels: Tensor) -> "FactorCovariance":
        """The covariance of some pixels alone. pixels: (d,) bool."""
        return FactorCovariance(factor=self.factor[pixels], diagonal=self.diagonal[pixels])

    def given(self, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden residuals given visible ones, in closed form.

        visible: (d,) bool. Returns (A, v): hidden u is N(A u_visible, .) with variances v; A (hidden, visible), v
        (hidden,).
        """
        W, _ = self.visible(visible)._whitening
        L_v, L_h = self.factor[visible], self.factor[~visible]
        D_v = self.diagonal[visible]
        # P = L_v^T (L_v L_v^T + D_v)^-1, so that A = L_h P.
        P = (L_v / D_v[:, None]).mT - (L_v.mT @ W.mT) @ W  # (r, visible)
        remaining = -(P @ L_v)
        remaining.diagonal().add_(1)  # covariance of the r factors given the visible pixels
        variance = ((L_h @ remaining) * L_h).sum(1) + self.diagonal[~visible]
        return L_h @ P, variance

    def to(self, device: torch.device | str) -> "FactorCovariance":
        """The same on another device."""
        return FactorCovariance(factor=self.factor.to(device), diagonal=self.diagonal.to(device))


def from_dense(covariance: Tensor, floor: float) -> FactorCovariance:
    """The covariance whose eigenvalues below `floor` are raised to it, as L L^T + c I with c its smallest eigenvalue.

    covariance: (d, d), symmetric.
    """
    values, vectors = torch.linalg.eigh(covariance)
    least = max(floor, float(values[0]))
    above = values > least
    factor = vectors[:, above] * (values[above] - least).sqrt()
    return FactorCovariance(factor=factor, diagonal=torch.full_like(values, least))


def cap(covariances: tuple[FactorCovariance, ...], variance_floor: float) -> float:
    """The largest log p(x|z) in nats that any image can have, where every sigma_k(z)^2 is at least `variance_floor`."""
    d = len(covariances[0].diagonal)
    return -0.5 * (d * (LOG_2PI + math.log(variance_floor)) + min(one.log_determinant for one in covariances))
