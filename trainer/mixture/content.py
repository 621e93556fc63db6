"""A digest of the points of all processes, which says whether a checkpoint or a result was made from them."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.mixture.points import Points, place_among_ranks
from trainer.process_group import Ranks

_PIECES = 4  # of 16 bits, whose sums over processes float64 holds exactly
_ROWS = 100_000


def digest_of_points(points: Points | None, ranks: Ranks) -> str | None:
    """16 hexadecimal digits that differ between different points or orders of points; None of None.

    The same however the points are spread over processes. Every process calls it.
    """
    if points is None:
        return None
    total, first = place_among_ranks(len(points), ranks)
    columns = points.x if points.variance is None else torch.cat([points.x, points.variance], 1)
    generator = torch.Generator().manual_seed(columns.shape[1])
    factors = torch.randint(-(2**62), 2**62, (2, columns.shape[1] + 1), generator=generator).to(columns.device)
    factors |= 1
    found = 0
    for start in range(0, len(columns), _ROWS):
        bits = columns[start : start + _ROWS].double().contiguous().view(torch.int64)
        # Low bits of a product depend on low bits only, so that the high ones are brought down before the second.
        mixed = (bits ^ (bits >> 32)) * factors[0, 1:]
        rows = ((mixed ^ (mixed >> 29)) * factors[1, 1:]).sum(1)
        places = torch.arange(first + start, first + start + len(rows), device=rows.device)
        rows = (rows ^ (rows >> 31)) * (2 * places + 1)
        found += int((rows ^ (rows >> 30)).sum()) % 2**64
    pieces = [found >> (16 * i) & 0xFFFF for i in range(_PIECES)]
    sums = ranks.sum_(torch.tensor(pieces, dtype=torch.float64, device=ranks.device)).tolist()
    whole = sum(int(value) << (16 * i) for i, value in enumerate(sums)) % 2**64
    return hashlib.sha256(f"{total} {columns.shape[1]} {whole}".encode()).hexdigest()[:16]


def digest_of_tensors(tensors: Mapping[str, Tensor | None]) -> str:
    """16 hexadecimal digits that differ between different tensors of these names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        if tensor is not None:
            found.update(str(tuple(tensor.shape)).encode())
            found.update(tensor.detach().double().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
