"""Rounds of monotone maps of single coefficients, which give samples the distributions that they have in real images.

A linear map gives images the means and covariances of real ones, and leaves the shape of every distribution: pixels of
real images are often exactly black or white, and differences of neighbours are mostly small and sometimes large. The
map of one coefficient that gives it another distribution is monotone: its quantiles go to the other's. One round maps
so every coefficient of an orthonormal basis, and as it changes those of other bases, rounds in several bases follow one
another (Pitie, Kokaram and Dahyot 2007, whose bases are random rotations). Here they are in turn

    a Haar wavelet basis of two levels      edges and texture of their own place and size
    pixels
    the Haar basis, moved by one pixel      the edges that fall between its blocks

Nothing but the image itself decides where it goes, so that an image stays a function of its latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

QUANTILES = 400
"""Q: points of each monotone map."""
MOST_ROUNDS = 30
_LEVELS = 2
_IMAGES_AT_A_TIME = 1024
_COEFFICIENTS_AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True)
class Marginals:
    """R rounds of monotone maps of images of d = C H W pixels."""

    source: Tensor
    """(R, d, Q) float32, the quantiles of each coefficient of samples before each round, ascending."""
    target: Tensor
    """(R, d, Q) float32, those of real images."""

    def apply(self, images: Tensor) -> Tensor:
        """Images after all rounds, (B, C, H, W) as given; not cut to [0, 1]."""
        for number in range(len(self.source)):
            images = _round(images, number, self.source[number], self.target[number])
        return images


@torch.inference_mode()
def fit_marginals(real: Tensor, samples: Tensor, rounds: int) -> Marginals:
    """The rounds that give samples the distributions of real images' coefficients.

    real, samples: (n, C, H, W) and (m, C, H, W), float32, of one device; pixels of samples may be outside of [0, 1].
    """
    maps = []
    for number in range(rounds):
        maps.append(tuple(_quantiles(_coefficients(images, number).flatten(1)) for images in (samples, real)))
        moved = [_round(part, number, *maps[-1]) for part in samples.split(_IMAGES_AT_A_TIME)]
        samples = torch.cat(moved)
    return Marginals(source=torch.stack([one for one, _ in maps]), target=torch.stack([two for _, two in maps]))


def _round(images: Tensor, number: int, source: Tensor, target: Tensor) -> Tensor:
    """Images after round `number`, whose maps take the quantiles `source` to `target`, each (d, Q)."""
    coefficients = _coefficients(images, number)
    moved = _mapped(coefficients.flatten(1).mT.contiguous(), source, target).mT
    return _coefficients(moved.reshape(coefficients.shape), number, inverse=True)


def _quantiles(values: Tensor) -> Tensor:
    """The Q quantiles of each column of (n, d), at (i + 1/2) / Q, as (d, Q)."""
    n = len(values)
    ranks = ((torch.arange(QUANTILES, device=values.device, dtype=torch.float64) + 0.5) / QUANTILES * n).long()
    parts = values.split(_COEFFICIENTS_AT_A_TIME, dim=1)
    return torch.cat([part.mT.sort(dim=1).values[:, ranks] for part in parts])


def _mapped(values: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Values (d, B) by the maps that take the quantiles `source` to `target`, (d, Q), and are linear between them.

    Beyond the outermost quantiles a value keeps its distance from them.
    """
    # A value that many quantiles share goes to the middle of theirs.
    first, last = torch.searchsorted(source, values), torch.searchsorted(source, values, right=True)
    place = ((first + last) // 2).clamp(1, source.shape[1] - 1)
    low, high = source.gather(1, place - 1), source.gather(1, place)
    part = ((values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)).clamp(0, 1)
    mapped = torch.lerp(target.gather(1, place - 1), target.gather(1, place), part)
    return mapped + (values - source[:, -1:]).clamp_min(0) + (values - source[:, :1]).clamp_max(0)


def _coefficients(images: Tensor, number: int, *, inverse: bool = False) -> Tensor:
    """Images in the basis of round `number`, of the shape of images, (B, C, H, W); inverse: images of coefficients."""
    kind = number % 3
    if kind == 1:
        return images
    rows, columns = (_haar(side).to(images) for side in images.shape[2:])
    if inverse:
        found = rows.mT @ images @ columns
        return found.roll((1, 1), (2, 3)) if kind == 2 else found
    if kind == 2:
        images = images.roll((-1, -1), (2, 3))
    return rows @ images @ columns.mT


def _haar(side: int) -> Tensor:
    """The one-dimensional Haar basis, (side, side) with orthonormal rows, the coarsest first.

    Of two levels, and fewer where a side cannot be halved as often.
    """
    rows = torch.eye(side, dtype=torch.float64)
    coarse = side
    for _ in range(_LEVELS):
        if coarse % 2:
            break
        pairs = rows[:coarse].view(coarse // 2, 2, side)
        rows[:coarse] = torch.cat([pairs.sum(1), pairs[:, 0] - pairs[:, 1]]) * 0.5**0.5
        coarse //= 2
    return rows
