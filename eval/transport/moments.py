"""Means and covariances of images by component."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of the points of K components in P dimensions. Both covariances are of the whole population, divided by n."""

    count: Tensor
    """(K,), points of each component."""
    mean: Tensor
    """(K, P); 0 where a component has no points."""
    covariance: Tensor
    """(K, P, P)."""

    def pooled(self) -> Tensor:
        """The covariance around each point's own component, (P, P)."""
        return torch.einsum("k,kij->ij", self.count / self.count.sum(), self.covariance)


class MomentSums:
    """Gathers points until there are enough of a component to be worth a product of matrices."""

    def __init__(self, components: int, dim: int) -> None:
        self.count = torch.zeros(components, dtype=torch.float64)
        self.sum = torch.zeros(components, dim, dtype=torch.float64)
        self.products = torch.zeros(components, dim, dim, dtype=torch.float64)

    def add(self, points: Tensor, component: Tensor) -> None:
        """points: (n, P) float64; component: (n,) int64, the component of each."""
        for k in component.unique().tolist():
            own = points[component == k]
            self.count[k] += len(own)
            self.sum[k] += own.sum(0)
            self.products[k] += own.mT @ own

    def moments(self, ranks: Ranks) -> Moments:
        """The moments of all processes' points, on every process."""
        sums: Iterable[Tensor] = (self.count, self.sum, self.products)
        count, total, products = (ranks.sum_(values.to(ranks.device)).cpu() for values in sums)
        n = count.clamp_min(1)
        mean = total / n[:, None]  # (K, P)
        covariance = products / n[:, None, None] - mean[:, :, None] * mean[:, None, :]
        return Moments(count=count, mean=mean, covariance=covariance)
