"""The interface of an E-step, exact or truncated, and the sums that both need."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainer.mixture.em.statistics import Statistics
from trainer.mixture.parameters import Parameters

# exp of an argument that underflows costs ten times one that does not, and nearly all arguments would underflow.
_LOWEST_EXPONENT = -80.0


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
