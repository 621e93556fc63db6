"""The covariance of a run's standardised residuals, in closed form, with what is free chosen on held-out images.

For given shrinkage every estimate is the maximum of the likelihood: the second moment itself for images of few pixels,
a factor model (Tipping and Bishop 1999; the diagonal is then that of the second moment) for large ones. The shrinkage
towards independent pixels, the number of factors, and the strength with which a component's covariance is drawn towards
the common one are those under which residuals of held-out images are most likely.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.images.blocks import evenly_spaced
from eval.residuals.covariance import FactorCovariance, from_dense
from eval.residuals.sums import Residuals, SecondMoments, directions, moments
from eval.results import Tried
from eval.run import MeasuredRun
from trainer.mixture.density import MixtureDensity
from trainer.process_group import Ranks

MOST_PIXELS = 1024
"""Images of more pixels have a factor model; up to this the whole second moment is kept."""
MOST_FACTORS = 512
HELD_OUT_IMAGES = 2000
"""Held-out images, evenly spaced, on which choices are made."""
# Without a floor, for residuals that are constant in some direction; in units of sigma^2.
LEAST_EIGENVALUE = 1e-6
_SHRINKAGES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_RANKS = (0, 8, 16, 32, 64, 128, 256, 512)
_STRENGTHS = (30, 100, 300, 1000, 3000, 10_000, 100_000)
_MOST_BYTES = 6e9

Covariances = tuple[FactorCovariance, ...]
"""One, or one a component."""


@dataclass(frozen=True, kw_only=True)
class FittedCovariances:
    """What a fit found."""

    covariances: Covariances
    """One for all, or one a component."""
    gain: float
    """Nats per held-out image gained over independent pixels; see `Tried`."""
    common: tuple[Tried, ...]
    """What was tried for the common covariance: shrinkages, or ranks where there are more than MOST_PIXELS pixels."""
    strengths: tuple[Tried, ...]
    """What was tried for components; empty for one covariance."""
    images: tuple[int, ...]
    """Training images of each component, or all of them."""


def fit_covariances(
    run: MeasuredRun,
    mixture: MixtureDensity | None,
    floor: float,
    ranks: Ranks,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda images: None,
) -> FittedCovariances:
    """The covariances of the training images' residuals, the same on every process.

    mixture: with a covariance for each of its components; None for one. floor: least eigenvalue, in units of sigma^2.
    progress: called with the number of images of a chunk; there are `passes(pixels)` passes. Raises InputError where
    so many components do not fit into memory.
    """
    data, pixels = run.config.data, run.model.pixels
    n, floor = run.manifest.num_samples(data.train_split), max(floor, LEAST_EIGENVALUE)
    train = Residuals(run=run, split=data.train_split, indices=np.arange(n), mixture=mixture, seed=seed, ranks=ranks)
    _require_memory(train.components, pixels)
    basis = None
    if pixels > MOST_PIXELS:
        basis = directions(train, min(MOST_FACTORS, max(1, n // 2)), seed, progress)
    found = moments(train, basis, progress)
    held_out = _HeldOut(run, mixture, seed, ranks)
    shape = _Full(found, floor) if basis is None else _Factors(found, basis, floor)
    setting, common = _best(shape.settings, lambda value: held_out.gain((shape.common(value),)))
    covariances: Covariances = (shape.common(setting),)
    strengths: tuple[Tried, ...] = ()
    if mixture is not None:
        strength, strengths = _best(_STRENGTHS, lambda value: held_out.gain(shape.components(setting, value)))
        covariances = shape.components(setting, strength)
    return FittedCovariances(
        covariances=covariances,
        gain=max(tried.gain for tried in strengths or common),
        common=common,
        strengths=strengths,
        images=tuple(int(count) for count in found.count),
    )


def passes(pixels: int) -> int:
    """Passes over the training images."""
    return 1 if pixels <= MOST_PIXELS else 2


def _require_memory(components: int, pixels: int) -> None:
    directions = pixels if pixels <= MOST_PIXELS else MOST_FACTORS
    needed = 8.0 * components * directions * (directions + pixels)
    if components > 1 and needed > _MOST_BYTES:
        raise InputError(
            f"{components} covariances of {pixels:,} pixels need {needed / 1e9:.0f} GB; use a mixture of fewer "
            "components, or --noise correlated for one covariance",
            parameter="mixture",
        )


def _best(values: Sequence[float], gain: Callable[[float], float]) -> tuple[float, tuple[Tried, ...]]:
    """The value of largest gain, in an order in which gains rise and then fall, and all that were tried."""
    tried: list[Tried] = []
    for value in values:
        tried.append(Tried(value=value, gain=gain(value)))
        if len(tried) > 1 and tried[-1].gain < tried[-2].gain:
            break
    return max(tried, key=lambda one: one.gain).value, tuple(tried)


class _HeldOut:
    """Residuals of held-out images, this process's share."""

    def __init__(self, run: MeasuredRun, mixture: MixtureDensity | None, seed: int, ranks: Ranks) -> None:
        total = run.manifest.num_samples(run.config.data.valid_split)
        indices = evenly_spaced(min(total, HELD_OUT_IMAGES), total)
        split, self._ranks, self._images = run.config.data.valid_split, ranks, len(indices)
        residuals = Residuals(run=run, split=split, indices=indices, mixture=mixture, seed=seed, ranks=ranks)
        # float32 halves what is kept of large images.
        parts = [(u.float(), component) for u, component in residuals]
        empty = torch.zeros(0, run.model.pixels, device=ranks.device)
        self._u = torch.cat([u for u, _ in parts] or [empty])
        self._component = torch.cat([component for _, component in parts] or [empty[:, 0].long()])

    def gain(self, covariances: Covariances) -> float:
        """Nats per image of all processes' residuals above those under N(0, I)."""
        total = torch.zeros(1, dtype=torch.float64, device=self._ranks.device)
        for k, covariance in enumerate(covariances):
            own = self._component == k if len(covariances) > 1 else slice(None)
            for u in self._u[own].split(512):
                independent = FactorCovariance(
                    factor=u.new_zeros(u.shape[1], 0).double(), diagonal=torch.ones_like(u[0]).double()
                )
                total += (covariance.log_density(u.double()) - independent.log_density(u.double())).sum()
        return float(self._ranks.sum_(total)) / self._images


class _Full:
    """Covariances of images of few pixels."""

    settings = _SHRINKAGES

    def __init__(self, found: SecondMoments, floor: float) -> None:
        self._found, self._floor = found, floor

    def _shrunk(self, shrinkage: float) -> Tensor:
        pooled = self._found.pooled
        return (1 - shrinkage) * pooled + shrinkage * torch.diag(pooled.diagonal())

    def common(self, shrinkage: float) -> FactorCovariance:
        return from_dense(self._shrunk(shrinkage), self._floor)

    def components(self, shrinkage: float, strength: float) -> Covariances:
        """strength: images that the common covariance counts for beside a component's own."""
        common, found = self._shrunk(shrinkage), self._found
        return tuple(
            from_dense((products + strength * common) / (count + strength), self._floor)
            for products, count in zip(found.products, found.count, strict=True)
        )


class _Factors:
    """Covariances of large images, as a few factors and a diagonal."""

    def __init__(self, found: SecondMoments, basis: Tensor, floor: float) -> None:
        values, vectors = torch.linalg.eigh(found.pooled)
        self._values, self._rotation = values.flip(0), vectors.flip(1)
        self._basis = basis @ self._rotation  # (d, P), the direction of largest variance first
        self._found, self._floor = found, floor
        self.settings = tuple(rank for rank in _RANKS if rank <= len(values))

    def _noise(self, rank: int) -> float:
        """The mean variance in the directions that are left out."""
        d = len(self._found.variance)
        return float((self._found.variance.sum() - self._values[:rank].sum()) / max(1, d - rank))

    def common(self, rank: float) -> FactorCovariance:
        r = int(rank)
        factor = self._basis[:, :r] * (self._values[:r] - self._noise(r)).clamp_min(0).sqrt()
        return FactorCovariance(factor=factor, diagonal=self._diagonal(factor))

    def _diagonal(self, factor: Tensor) -> Tensor:
        """What is left of each pixel's variance."""
        return (self._found.variance - factor.square().sum(1)).clamp_min(self._floor)

    def components(self, rank: float, strength: float) -> Covariances:
        """In the directions and with the diagonal of the common covariance. strength: as for small images."""
        r, found = int(rank), self._found
        basis, noise, diagonal = self._basis[:, :r], self._noise(r), self.common(rank).diagonal
        rotation, common = self._rotation[:, :r], torch.diag(self._values[:r])
        fitted = []
        for products, count in zip(found.products, found.count, strict=True):
            own = rotation.mT @ products @ rotation
            values, vectors = torch.linalg.eigh((own + strength * common) / (count + strength))
            factor = basis @ (vectors * (values - noise).clamp_min(0).sqrt())
            fitted.append(FactorCovariance(factor=factor, diagonal=diagonal))
        return tuple(fitted)
