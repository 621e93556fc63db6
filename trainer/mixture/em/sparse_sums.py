"""The M-step's sums over the few pairs whose responsibility is not negligible, in place of a dense product.

At inverse temperature 1 and in many dimensions a point belongs to a handful of thousands of components. The dense
product, which is half of an EM iteration, then multiplies zeros.
"""

import torch
from torch import Tensor

from trainer.mixture.em.pairs import Pairs
from trainer.mixture.em.statistics import Statistics
from trainer.mixture.points import Points

# 10,000 pairs that are left out change a count by less than 1e-6.
LEAST_RESPONSIBILITY = 1e-10
# Above this part of all pairs the dense product is faster.
_LARGEST_SHARE = 0.03
_PAIRS_BETWEEN_SUMS = 500_000


class SparseSums:
    """Collects responsibilities of chunk after chunk and adds them to float64 statistics, many at a time."""

    def __init__(self, points: Points, statistics: Statistics, covariance_type: str) -> None:
        self._points, self._statistics, self._kind = points, statistics, covariance_type
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pairs = 0

    def take(self, first: int, relative: Tensor, total: Tensor) -> bool:
        """Takes the responsibilities relative / total (n, K) of the points from place `first` on.

        Returns False, and takes nothing, where they are not sparse enough.
        """
        row, component = (relative > LEAST_RESPONSIBILITY * total[:, None]).nonzero(as_tuple=True)
        if len(row) > _LARGEST_SHARE * relative.numel():
            return False
        self._waiting.append((row + first, component, relative[row, component] / total[row]))
        self._pairs += len(row)
        if self._pairs >= _PAIRS_BETWEEN_SUMS:
            self.add()
        return True

    def add(self) -> None:
        """Adds what waits."""
        if not self._waiting:
            return
        row, component, weight = (torch.cat(tensors) for tensors in zip(*self._waiting, strict=True))
        sums = self._statistics.sums
        pairs = Pairs.of(row, component, len(sums))
        pairs.add_sums(self._points.to(torch.float64), weight.double(), sums, self._kind)
        self._waiting.clear()
        self._pairs = 0
