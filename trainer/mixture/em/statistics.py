"""Expected sufficient statistics, from which the M-step computes parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.packed import packed_size, quadratic_columns
from trainer.process_group import Ranks


@dataclass(frozen=True)
class Statistics:
    """Float64 sums over points.

    sums: (K, columns), responsibilities times features: counts, sums of x, sums of quadratic terms.
    common: (P,), the packed sum of x x^T over all points, for tied covariances, else (0,).
    totals: (2,), the log-likelihood in nats and the number of points.
    """

    sums: Tensor
    common: Tensor
    totals: Tensor

    @staticmethod
    def zeros(covariance_type: str, n_components: int, dim: int, device: torch.device) -> "Statistics":
        """Of no points."""
        columns = 1 + dim + quadratic_columns(covariance_type, dim)
        common = packed_size(dim) if covariance_type == "tied" else 0
        sizes: tuple[tuple[int, ...], ...] = ((n_components, columns), (common,), (2,))
        return Statistics(*(torch.zeros(size, dtype=torch.float64, device=device) for size in sizes))

    def all_reduce(self, ranks: Ranks) -> "Statistics":
        """Adds up the statistics of all processes, in place."""
        for tensor in (self.sums, self.common, self.totals):
            ranks.sum_(tensor)
        return self

    def copy(self) -> "Statistics":
        """A copy that shares no memory."""
        return Statistics(self.sums.clone(), self.common.clone(), self.totals.clone())

    def add_(self, other: "Statistics") -> "Statistics":
        """Adds the statistics of other points, in place."""
        for mine, theirs in ((self.sums, other.sums), (self.common, other.common), (self.totals, other.totals)):
            mine.add_(theirs)
        return self

    def scaled(self, factor: float) -> "Statistics":
        """The statistics with every point weighted by `factor`."""
        return Statistics(self.sums * factor, self.common * factor, self.totals * factor)

    @property
    def counts(self) -> Tensor:
        """(K,): expected number of points of each component."""
        return self.sums[:, 0]

    @property
    def points(self) -> float:
        """The number of points, N."""
        return float(self.totals[1])

    @property
    def mean_log_likelihood(self) -> float:
        """Nats per point."""
        return float(self.totals[0] / self.totals[1])
