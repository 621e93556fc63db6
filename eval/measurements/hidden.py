"""Hidden pixels of an image given its visible ones, for latents z: in closed form, for both kinds of noise."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from eval.measurements.posterior_samples import LatentVariableModel
from eval.residuals.covariance import FactorCovariance, from_dense
from eval.residuals.noise import CorrelatedNoise, standardised
from trainer.objectives.families import log_density


def hidden_pixels(name: str, shape: tuple[int, int, int]) -> Tensor:
    """Which part of images (C, H, W) is hidden, the same for all: (C, H, W) bool.

    A half; the central square of half the sides; or, for random, one half of the pixels (in all channels), drawn once.
    """
    _, height, width = shape
    hidden = torch.zeros(shape, dtype=torch.bool)
    if name == "random":
        pixels = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))[: height * width // 2]
        hidden.flatten(1)[:, pixels] = True
        return hidden
    rows, columns = {
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height // 2, None), slice(None)),
        "square": (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)),
    }[name]
    hidden[:, rows, columns] = True
    return hidden


class Completions(NamedTuple):
    """The hidden pixels of one image given its visible ones, for M latents."""

    log_likelihood: Tensor
    """log p(visible | z), nats, (M,) float64."""
    mean: Tensor
    """Of the hidden pixels given the visible ones and z, (M, hidden) float64."""
    variance: Tensor
    """Of each, (M, hidden) float64."""
    family: str
    """The density of each about its mean."""


class Completer(Protocol):
    """Completes images under one model of their noise."""

    @property
    def model(self) -> LatentVariableModel:
        """Encoder and decoder."""
        ...

    def __call__(self, x: Tensor, z: Tensor) -> Completions:
        """x: (C, H, W) in [0, 1], whose hidden pixels are not looked at; z: (M, D)."""
        ...


@dataclass(frozen=True, kw_only=True)
class DecoderAlone:
    """Independent pixels: visible ones tell of z, and nothing more of the hidden ones."""

    model: LatentVariableModel
    """Whose p(x|z)."""
    hidden: Tensor
    """(C, H, W) bool."""

    def __call__(self, x: Tensor, z: Tensor) -> Completions:
        output, hidden = self.model.decode(z), self.hidden.flatten()
        u, std = standardised(x.expand_as(output.mean), output)
        log_px = (log_density(u, output.family) - std.log())[:, ~hidden].sum(1)
        mean, variance = output.mean.double().flatten(1)[:, hidden], std[:, hidden].square()
        return Completions(log_px, mean, variance, output.family)


@dataclass(frozen=True, kw_only=True)
class WithResiduals:
    """Correlated noise: the residuals of visible pixels tell of those of hidden ones."""

    model: LatentVariableModel
    """Whose g(z) and sigma(z)."""
    hidden: Tensor
    """(C, H, W) bool."""
    noise: CorrelatedNoise
    """The fitted covariances."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_given", cache(self._parts))

    def _parts(self, covariance: int) -> tuple[FactorCovariance, Tensor, Tensor]:
        """Of a covariance: that of the visible pixels, and gain and variances of the hidden ones."""
        whole, visible = self.noise.covariances[covariance], ~self.hidden.flatten()
        gain, variance = whole.given(visible)
        shown = whole.visible(visible)
        fewer = shown if shown.factor.shape[1] <= shown.factor.shape[0] else from_dense(shown.dense, 0.0)
        return fewer, gain, variance

    def __call__(self, x: Tensor, z: Tensor) -> Completions:
        output, hidden = self.model.decode(z), self.hidden.flatten()
        u, std = standardised(x.expand_as(output.mean), output)
        log_px = -std[:, ~hidden].log().sum(1)
        mean = output.mean.double().flatten(1)[:, hidden]
        variance = std[:, hidden].square()
        for rows, k in self.noise.by_component(z):
            shown, gain, left = self._given(k)  # type: ignore[attr-defined]
            visible = u[rows][:, ~hidden]
            log_px[rows] += shown.log_density(visible)
            mean[rows] += std[rows][:, hidden] * (visible @ gain.mT)
            variance[rows] *= left
        return Completions(log_px, mean, variance, "gaussian")
