"""Expected sufficient statistics, and the interface of an E-step, exact or truncated, that computes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer.mixture.packed import packed_size, quadratic_columns
from trainer.mixture.parameters import Parameters
from trainer.process_group import Ranks

# exp of an argument that underflows costs ten times one that does not, and nearly all arguments would underflow.
_LOWEST_EXPONENT = -80.0


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


class EStep(Protocol):
    """The E-step over this process's training points, and the likelihood of its held-out points."""

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """Expected sufficient statistics of the training points at inverse temperature beta.

        The log-likelihood in the totals is 1 / beta times the log of the sum of the beta-th powers.
        """

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """Sums of log q over the held-out points with covariances inflated by each factor, then the number of points.

        Returns (len(inflations) + 1,) float64.
        """

    def exact(self, name: str, parameters: Parameters) -> Statistics:
        """Expected sufficient statistics of the points "train" or "held_out", with no component left out."""

    def forget(self) -> None:
        """Frees what was computed from the last parameters."""

    def state(self) -> dict[str, Tensor]:
        """The tensors beside the parameters that a resumed fit needs for the same result; may be empty."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores what `state` returned."""


def normalise_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces logits (n, K) by exp(logits - max) and returns max + log(sum) and sum, (n,) each."""
    top = logits.amax(1)
    total = logits.sub_(top[:, None]).clamp_(min=_LOWEST_EXPONENT).exp_().sum(1)
    return top + total.log(), total


def inflated_log_sums(logits: Tensor, constants: Tensor, dim: int, inflations: Sequence[float]) -> Tensor:
    """Sums over points of log q for each inflation of the covariances, from densities that are computed already.

    logits: (n, K) or (n, C), log w_k + log N(x; mu_k, Sigma_k); constants: the same without the quadratic term,
    broadcastable to logits. Returns (len(inflations),) float64.
    """
    sums = []
    for factor in inflations:
        inflated = constants + (logits - constants) / factor - 0.5 * dim * math.log(factor)
        sums.append(normalise_(inflated)[0].double().sum())
    return torch.stack(sums)
