"""The order of samples in an epoch, a pure function of (manifest hash, split, seed, epoch); how well it is shuffled.

The shards of the split are shuffled, cut into windows of `manifest.window` shards, and the samples inside each window
are shuffled. Any stretch of the epoch is found without the rest of it: memory is O(shards + window). The random numbers
are raw Philox output, which NumPy promises never to change, unlike its `permutation`.
"""

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_STRETCHES, _STRETCH = 64, 4096  # where a large epoch is measured: evenly spread


class Counted(Protocol):
    """What the order depends on: a `Manifest`, or a made-up one in `simulate`."""

    @property
    def hash(self) -> str:
        """Hexadecimal digest of the content."""

    @property
    def window(self) -> int:
        """Shards in one shuffling window."""

    def shard_counts(self, split: str) -> NDArray[np.int64]:
        """Samples in each shard of a split, source order; shape (shards,)."""


class EpochOrder:
    """The order of one epoch of one split; with shuffle=False, that of the source."""

    def __init__(self, manifest: Counted, *, split: str, seed: int, epoch: int, shuffle: bool = True) -> None:
        self._shuffle = shuffle
        self._manifest, self._split, self._seed, self._epoch = manifest, split, seed, epoch
        counts = manifest.shard_counts(split)
        self.num_samples = int(counts.sum())
        source_starts = np.cumsum(counts) - counts  # (shards,)
        self.shard_order = self._permutation(len(counts), "shards")  # (shards,)
        self._source_starts = source_starts[self.shard_order]  # (shards,), in epoch order
        self._counts = counts[self.shard_order]  # (shards,), in epoch order
        per_window = np.add.reduceat(self._counts, np.arange(0, len(counts), manifest.window))
        self.window_stops = np.cumsum(per_window)  # (windows,), positions in the epoch
        self._window = functools.lru_cache(maxsize=2)(self._shuffled_window)

    def _permutation(self, count: int, *purpose: str | int) -> NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(count)
        words = [self._manifest.hash, self._split, self._seed, self._epoch, *purpose]
        digest = hashlib.sha256("|".join(map(str, words)).encode()).digest()
        # Sorting 64-bit random keys permutes uniformly but for ties, which a stable sort makes harmless.
        return np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count).argsort(kind="stable")

    def upcoming_shards(self, window: int) -> NDArray[np.int64]:
        """The shards of the split, numbered in source order, that a window and the one after it hold."""
        size = self._manifest.window
        return self.shard_order[window * size : (window + 2) * size]

    def _shuffled_window(self, window: int) -> NDArray[np.int64]:
        part = slice(window * self._manifest.window, (window + 1) * self._manifest.window)
        counts, starts = self._counts[part], self._source_starts[part]
        before = np.cumsum(counts) - counts
        samples = np.repeat(starts - before, counts) + np.arange(counts.sum())  # (samples of the window,)
        return samples[self._permutation(len(samples), "window", window)]

    def window_of(self, position: int) -> int:
        """Number of the window that a position of the epoch falls into."""
        return int(np.searchsorted(self.window_stops, position, side="right"))

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """Sample indices at the positions start..stop of the epoch, int64, shape (stop - start,)."""
        if not 0 <= start <= stop <= self.num_samples:
            raise ValueError(f"positions {start}..{stop} are not within 0..{self.num_samples}")
        parts = [np.empty(0, np.int64)]
        while start < stop:
            window = self.window_of(start)
            end = int(self.window_stops[window])
            samples = self._window(window)
            begin = end - len(samples)
            parts.append(samples[start - begin : min(stop, end) - begin])
            start = min(stop, end)
        return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True)
class ShuffleQuality:
    """How well one epoch is shuffled, compared with a true shuffle."""

    correlation: float
    """Correlation of the source indices of neighbours in the order: 1 for source order, about 0 for a true shuffle."""
    expected: float
    """What a true shuffle gives on average: -1 / (n - 1)."""
    deviation: float
    """Standard deviation of what a true shuffle gives, about 1 / sqrt(pairs)."""
    pairs: int
    """Pairs of neighbours that were measured."""

    def __str__(self) -> str:
        if not self.pairs:
            return "fewer than 3 images, whose order says nothing"
        return (
            f"correlation of neighbours {self.correlation:+.4f} over {self.pairs:,} pairs; a true shuffle gives "
            f"{self.expected:+.4f} +- {self.deviation:.4f}"
        )


def shuffle_quality(order: EpochOrder) -> ShuffleQuality:
    """Serial correlation at lag one of the source indices, in all of a small epoch and evenly spread in a large one.

    Mean and variance are those of the whole epoch, 0..n-1, so that windows that lie apart in the source show up: with
    windows of w random shards it is about 1 / w.
    """
    n = order.num_samples
    if n < 3:
        return ShuffleQuality(correlation=math.nan, expected=math.nan, deviation=math.nan, pairs=0)
    starts, length = [0], n
    if n > _STRETCHES * _STRETCH:
        starts, length = np.linspace(0, n - _STRETCH, _STRETCHES).astype(np.int64).tolist(), _STRETCH
    product = 0.0
    for start in starts:
        centred = order(start, start + length) - (n - 1) / 2
        product += float(centred[:-1] @ centred[1:])
    pairs = len(starts) * (length - 1)
    return ShuffleQuality(
        correlation=product / pairs / ((n * n - 1) / 12),
        expected=-1 / (n - 1),
        deviation=1 / math.sqrt(pairs),
        pairs=pairs,
    )
