"""Points that do not fit in memory: read chunk by chunk, anew in every pass."""

import mmap
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.mixture.points import check_values, matrix

STREAMED_BYTES = 1 << 30
"""A memory-mapped file above this size is read in chunks; a smaller one is fitted as an array is."""
# Numbers of one chunk.
_NUMBERS = 1 << 22


class Chunks:
    """A memory-mapped file of points (N, D), or something that gives them as arrays or tensors (n, D) whenever it is
    iterated, such as a list of them.

    Iterating gives tensors of about equally many rows. Raises InputError where shapes do not fit, values are NaN or
    infinite, or a pass gives another number of points than the one before.
    """

    def __init__(self, source: np.memmap | Iterable[Any]) -> None:
        if iter(source) is source:
            message = "an iterator can be read only once; use a list of chunks, or a class whose __iter__ begins anew"
            raise InputError(message, parameter="X")
        self._source = source
        self._count: int | None = None
        first = np.array(source[:1]) if isinstance(source, np.memmap) else next(iter(source), None)
        if first is None:
            raise InputError("there are no chunks; give at least one", parameter="X")
        self.are_tensors = isinstance(first, Tensor)
        """Whether the chunks are tensors, so that results are."""
        self.first = matrix(first, "X")[:1].detach().clone()
        """The first point, (1, D), in the chunks' number format and on their device; no row where there are none."""
        self.dim = self.first.shape[1]
        """D."""

    def __iter__(self) -> Iterator[Tensor]:
        rows = max(1, _NUMBERS // self.dim)
        parts = self._mapped(self._source, rows) if isinstance(self._source, np.memmap) else self._joined(rows)
        count = 0
        for part in parts:
            check_values(part, "X")
            count += len(part)
            yield part
        if self._count not in (None, count):
            raise InputError(f"one pass gave {self._count} points, the next {count}; give the same ones", parameter="X")
        self._count = count

    def _mapped(self, source: np.memmap, rows: int) -> Iterator[Tensor]:
        for start in range(0, len(source), rows):
            part = source[start : start + rows]
            yield matrix(np.array(part, dtype=part.dtype.newbyteorder("=")), "X")
            _give_back(source)

    def _joined(self, rows: int) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        count = 0
        for array in self._source:
            part = matrix(array, "X", self.dim).detach()
            waiting.append(part)
            count += len(part)
            if count >= rows:
                yield from torch.cat(waiting).split(rows)
                waiting, count = [], 0
        if count:
            yield torch.cat(waiting)


def chunks_of(X: Any) -> Chunks | None:
    """X as chunks where it is a large memory-mapped file or gives chunks one after another; None where it is an array.

    Raises InputError where it is an iterator, which cannot be read twice.
    """
    if isinstance(X, Tensor):
        return None
    if isinstance(X, np.memmap):
        return Chunks(X) if X.ndim == 2 and X.nbytes > STREAMED_BYTES else None
    if isinstance(X, (list, tuple)):
        are_chunks = bool(X) and all(isinstance(part, (np.ndarray, Tensor)) and part.ndim == 2 for part in X)
        return Chunks(X) if are_chunks else None
    is_array = hasattr(X, "shape") or hasattr(X, "__array__") or hasattr(X, "__dataframe__")
    if is_array or isinstance(X, (str, bytes, Mapping, Set)) or not isinstance(X, Iterable):
        return None
    return Chunks(X)


def _give_back(array: np.memmap) -> None:
    """Frees the pages of the file that were read, which would otherwise count as this process's memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    # Changes in a private copy would be lost.
    if isinstance(base, mmap.mmap) and array.mode != "c":
        base.madvise(mmap.MADV_DONTNEED)
