"""Rounds in which each coefficient of images in a basis gets the distribution that it has in other images."""

import dataclasses

import torch
from image_bases import haar_bands
from torch import Tensor

QUANTILES = 400
"""Points of each monotone map."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonotoneMaps:
    """A monotone map of each of d coefficients, linear between quantiles."""

    basis: Tensor
    """(d, d) with orthonormal columns."""
    source: Tensor
    """(d, QUANTILES), increasing, of the coefficients of the points that are moved."""
    target: Tensor
    """(d, QUANTILES), of the coefficients that they get."""

    def __call__(self, points: Tensor) -> Tensor:
        """points: (n, d). Returns (n, d)."""
        values = (points @ self.basis).T.contiguous()  # (d, n)
        place = torch.searchsorted(self.source, values).clamp(1, QUANTILES - 1)
        low, high = self.source.gather(1, place - 1), self.source.gather(1, place)
        part = ((values - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
        new = self.target.gather(1, place - 1) * (1 - part) + self.target.gather(1, place) * part
        # Beyond the outermost quantiles a value keeps its distance from them.
        new += (values - self.source[:, -1:]).clamp_min(0) + (values - self.source[:, :1]).clamp_max(0)
        return new.T @ self.basis.T


def quantiles(points: Tensor, basis: Tensor) -> Tensor:
    """Those of the coefficients of points, (n, d), in a basis, (d, d). Returns (d, QUANTILES)."""
    rank = ((torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES * len(points)).long()
    return (points @ basis).T.sort(1).values[:, rank].contiguous()


def monotone_rounds(moved: Tensor, real: Tensor, side: int, rounds: int) -> list[MonotoneMaps]:
    """In turn in a Haar basis, in pixels and in the basis shifted by a pixel; moved, real: (n, d), d = side^2."""
    wavelets = haar_bands(side)[0].float()
    shifted = wavelets.view(side, side, -1).roll((1, 1), (0, 1)).reshape(side * side, -1)
    bases, steps = [wavelets, torch.eye(side * side), shifted], []
    for step in range(rounds):
        basis = bases[step % len(bases)]
        maps = MonotoneMaps(basis=basis, source=quantiles(moved, basis), target=quantiles(real, basis))
        moved = torch.cat([maps(part) for part in moved.split(4096)])
        steps.append(maps)
    return steps
