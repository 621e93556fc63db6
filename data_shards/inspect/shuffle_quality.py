"""How well an epoch is shuffled, against a true shuffle."""

import math
from dataclasses import dataclass

import numpy as np

from data_shards.stream.order import EpochOrder

_STRETCHES, _STRETCH = 64, 4096  # of a large epoch, evenly spread


@dataclass(frozen=True)
class ShuffleQuality:
    """Of one epoch."""

    correlation: float
    """Correlation of the source indices of neighbours in the order: 1 for source order, about 0 for a true shuffle."""
    expected: float
    """What a true shuffle gives on average: -1 / (n - 1)."""
    deviation: float
    """Standard deviation of what a true shuffle gives, about 1 / sqrt(pairs)."""
    pairs: int
    """Neighbours that were looked at."""

    def __str__(self) -> str:
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
        return ShuffleQuality(math.nan, math.nan, math.nan, 0)
    starts, length = [0], n
    if n > _STRETCHES * _STRETCH:
        starts, length = np.linspace(0, n - _STRETCH, _STRETCHES).astype(np.int64).tolist(), _STRETCH
    product = 0.0
    for start in starts:
        centred = order(start, start + length) - (n - 1) / 2
        product += float(centred[:-1] @ centred[1:])
    pairs = len(starts) * (length - 1)
    return ShuffleQuality(product / pairs / ((n * n - 1) / 12), -1 / (n - 1), 1 / math.sqrt(pairs), pairs)
