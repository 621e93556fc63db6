"""The optimal transport between Gaussians, and the moments of the points that they describe."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.working_memory import numbers_at_a_time
from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of the points of K components in P dimensions, where the components of one group share a covariance."""

    count: Tensor
    """(K,), points of each component."""
    mean: Tensor
    """(K, P); 0 where a component has no points."""
    covariance: Tensor
    """(M, P, P), of each group's points around the means of their own components, divided by their number."""


class MomentSums:
    """Sums over points that come in parts, on the device of `group`: (K,) int64 in 0 to M - 1, of each component."""

    def __init__(self, group: Tensor, dim: int) -> None:
        self.group = group
        self.count = torch.zeros(len(group), dtype=torch.float64, device=group.device)
        self.sum = torch.zeros(len(group), dim, dtype=torch.float64, device=group.device)
        self.products = torch.zeros(int(group.max()) + 1, dim, dim, dtype=torch.float64, device=group.device)

    def add(self, points: Tensor, component: Tensor) -> None:
        """points: (n, P) float64; component: (n,) int64, the component of each."""
        self.count.index_add_(0, component, torch.ones_like(points[:, 0]))
        self.sum.index_add_(0, component, points)
        groups = self.group[component]
        for group in groups.unique().tolist():
            own = points[groups == group]
            self.products[group] += own.mT @ own

    def moments(self, ranks: Ranks) -> Moments:
        """The moments of all processes' points, on every process."""
        sums: Iterable[Tensor] = (self.count, self.sum, self.products)
        count, total, products = (ranks.sum_(values) for values in sums)
        mean = total / count.clamp_min(1)[:, None]  # (K, P)
        covariance = torch.zeros_like(products)
        for group in range(len(products)):
            members = self.group == group
            between = (count[members, None] * mean[members]).mT @ mean[members]  # (P, P)
            covariance[group] = (products[group] - between) / count[members].sum().clamp_min(1)
        return Moments(count=count, mean=mean, covariance=covariance)


def optimal_map(source: Tensor, target: Tensor) -> Tensor:
    """The symmetric A with A source A = target: x to A x moves N(0, source) to N(0, target) by the least mean square.

    A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2 for S = source and T = target (Knott and Smith 1984).
    source: (..., P, P), positive definite; target: (..., P, P), positive semi-definite; both float64. Returns
    (..., P, P).
    """
    values, vectors = _eigh(source)
    root = (vectors * values.sqrt()[..., None, :]) @ vectors.mT
    inverse_root = (vectors / values.sqrt()[..., None, :]) @ vectors.mT
    values, vectors = _eigh(root @ target @ root)
    return inverse_root @ (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mT @ inverse_root


def _eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """torch.linalg.eigh on the host: CUDA does matrices of more than 32 rows one after another, a millisecond each."""
    values, vectors = torch.linalg.eigh(matrices.cpu())
    return values.to(matrices.device), vectors.to(matrices.device)


def optimal_maps(source: Tensor, target: Tensor) -> Tensor:
    """`optimal_map` of (M, P, P) covariances each, in float32; on a GPU many at a time."""
    size = max(1, numbers_at_a_time(0, source.device) // (16 * source[0].numel()))
    parts = zip(source.split(size), target.split(size), strict=True)
    return torch.cat([optimal_map(*part).float() for part in parts])
