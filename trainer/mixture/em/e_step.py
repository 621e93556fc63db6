"""Expected sufficient statistics, and the interface of an E-step, exact or truncated, that computes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from trainer.mixture.packed import pack, packed_size, quadratic_columns
from trainer.mixture.parameters import Parameters
from trainer.mixture.working_memory import numbers_at_a_time
from trainer.process_group import Ranks

# Powers of 2 take a third of the time of exp.
_LOG2_E = 1 / math.log(2)
# One that underflows costs ten times one that does not, and nearly all would underflow. 2^-115 is exp(-80).
_LOWEST_EXPONENT = -115.0
# In the matrices of some components.
_MATRIX_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Statistics:
    """Float64 sums over points.

    sums: (K, columns), responsibilities times features of x - origin: counts, sums, sums of quadratic terms.
    common: (P,), the packed sum of r (x - origin) (x - origin)^T over all points, for tied covariances, else (0,).
    totals: (3,), the log-likelihood in nats, the number of points, and what the log-likelihood lacked where only the
    candidates of a truncated E-step were counted.
    origins: (K, D), what each component's points are counted from: second moments about a place far away, beside the
    width of the component, would lose it to rounding. None is 0 for all.
    """

    sums: Tensor
    common: Tensor
    totals: Tensor
    origins: Tensor | None = None

    @staticmethod
    def zeros(
        covariance_type: str, n_components: int, dim: int, device: torch.device, origins: Tensor | None = None
    ) -> "Statistics":
        """Of no points."""
        columns = 1 + dim + quadratic_columns(covariance_type, dim)
        common = packed_size(dim) if covariance_type == "tied" else 0
        sizes: tuple[tuple[int, ...], ...] = ((n_components, columns), (common,), (3,))
        first, second, totals = (torch.zeros(size, dtype=torch.float64, device=device) for size in sizes)
        return Statistics(first, second, totals, origins)

    def all_reduce(self, ranks: Ranks) -> "Statistics":
        """Adds up the statistics of all processes, in place."""
        for tensor in (self.sums, self.common, self.totals):
            ranks.sum_(tensor)
        return self

    def zero_(self) -> "Statistics":
        """Sets all sums to 0, in place."""
        for tensor in (self.sums, self.common, self.totals):
            tensor.zero_()
        return self

    def copy(self) -> "Statistics":
        """A copy that shares no memory."""
        return replace(self, sums=self.sums.clone(), common=self.common.clone(), totals=self.totals.clone())

    def add_(self, other: "Statistics") -> "Statistics":
        """Adds the statistics of other points about the same origins, in place."""
        for mine, theirs in ((self.sums, other.sums), (self.common, other.common), (self.totals, other.totals)):
            mine.add_(theirs)
        return self

    def scaled(self, factor: float) -> "Statistics":
        """The statistics with every point weighted by `factor`."""
        return replace(self, sums=self.sums * factor, common=self.common * factor, totals=self.totals * factor)

    def about(self, origins: Tensor | None, covariance_type: str) -> "Statistics":
        """The same statistics with the points counted from other origins (K, D)."""
        if origins is self.origins:
            return self
        dim = (self.origins if origins is None else origins).shape[1]  # type: ignore[union-attr]
        zero = self.sums.new_zeros(1, dim)
        step = (zero if self.origins is None else self.origins) - (zero if origins is None else origins)  # (K, D)
        sums, counts = self.sums.clone(), self.sums[:, :1]
        first = self.sums[:, 1 : 1 + dim]  # (K, D)
        sums[:, 1 : 1 + dim] += counts * step
        common = self.common
        if covariance_type in ("full", "tied"):
            # A few components at a time: all of their matrices would be several times the statistics.
            size = max(1, numbers_at_a_time(_MATRIX_NUMBERS, sums.device) // dim**2)
            if covariance_type == "tied":
                common = common.clone()
            for start in range(0, len(sums), size):
                block = slice(start, start + size)
                cross = first[block, :, None] * step[block, None]  # (b, D, D)
                square = (counts[block] * step[block])[:, :, None] * step[block, None]
                moved = pack(cross + cross.mT + square)
                if covariance_type == "full":
                    sums[block, 1 + dim :] += moved
                else:
                    common += moved.sum(0)
        else:
            moved = 2 * first * step + counts * step.square()  # (K, D)
            sums[:, 1 + dim :] += moved if covariance_type == "diag" else moved.sum(1, keepdim=True)
        return Statistics(sums, common, self.totals, origins)

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

    @property
    def truncation_loss(self) -> float:
        """Nats per point that the candidates of a truncated E-step leave out."""
        return float(self.totals[2] / self.totals[1])


class EStep(Protocol):
    """The E-step over this process's training points, and the likelihood of its held-out points."""

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """Expected sufficient statistics of the training points at inverse temperature beta.

        The log-likelihood in the totals is 1 / beta times the log of the sum of the beta-th powers.
        """

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """log q of this process's held-out points with covariances inflated by each factor: (n, len(inflations)).

        n is 0 where there are none.
        """

    def exact(self, name: str, parameters: Parameters, onto: Statistics | None = None) -> Statistics:
        """Expected sufficient statistics of the points "train" or "held_out", with no component left out.

        onto: those of other points by the same parameters, which these are added to.
        """

    def forget(self) -> None:
        """Frees what was computed from the last parameters."""

    def state(self) -> dict[str, Tensor]:
        """The tensors beside the parameters that a resumed fit needs for the same result; may be empty."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores what `state` returned."""


def normalise_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces logits (n, K) by exp(logits - max) and returns max + log(sum) and sum, (n,) each."""
    top = logits.amax(1)
    exponents = torch.add((-_LOG2_E * top)[:, None], logits, alpha=_LOG2_E, out=logits)
    total = exponents.clamp_(min=_LOWEST_EXPONENT).exp2_().sum(1)
    return top + total.log(), total


def inflated_log_densities(logits: Tensor, constants: Tensor, dim: int, inflations: Sequence[float]) -> Tensor:
    """log q of points for each inflation of the covariances, from densities that are computed already.

    logits: (n, K) or (n, C), log w_k + log N(x; mu_k, Sigma_k), overwritten; constants: the same without the quadratic
    term, broadcastable to logits. Returns (n, len(inflations)) float64.
    """
    if tuple(inflations) == (1.0,):
        return normalise_(logits)[0].double()[:, None]
    found = []
    for factor in inflations:
        inflated = constants + (logits - constants) / factor - 0.5 * dim * math.log(factor)
        found.append(normalise_(inflated)[0].double())
    return torch.stack(found, 1)
