"""Bases of grey images, (d, d) with orthonormal columns, and the columns of each of their bands."""

import torch
from torch import Tensor


def haar(side: int, levels: int = 2) -> Tensor:
    """The one-dimensional Haar basis, (side, side) with orthonormal rows, the coarsest first."""
    rows = torch.eye(side, dtype=torch.float64)
    coarse = side
    for _ in range(levels):
        half = coarse // 2
        step = torch.zeros(coarse, coarse, dtype=torch.float64)
        for i in range(half):
            step[i, 2 * i : 2 * i + 2] = 0.5**0.5
            step[half + i, 2 * i : 2 * i + 2] = torch.tensor([0.5**0.5, -(0.5**0.5)])
        rows[:coarse] = step @ rows[:coarse]
        coarse = half
    return rows


def haar_bands(side: int, levels: int = 2) -> tuple[Tensor, list[Tensor]]:
    """The separable Haar basis of images, (d, d) with orthonormal columns, and the columns of each band."""
    one = haar(side, levels)
    basis = torch.kron(one, one).T.contiguous()
    scale = torch.zeros(side, dtype=torch.int64)
    for level in range(1, levels + 1):
        scale[side >> level : side >> (level - 1)] = levels + 1 - level
    band = (scale[:, None] * (levels + 1) + scale[None, :]).flatten()
    return basis, [(band == one).nonzero()[:, 0] for one in band.unique().tolist()]


def patch_bands(side: int, patch: int = 7) -> tuple[Tensor, list[Tensor]]:
    """Pixels themselves, and those of each patch."""
    place = torch.arange(side) // patch
    band = (place[:, None] * side + place[None, :]).flatten()
    return torch.eye(side * side, dtype=torch.float64), [
        (band == one).nonzero()[:, 0] for one in band.unique().tolist()
    ]
