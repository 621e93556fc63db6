"""How strongly covariances are shrunk and inflated: the choice by the log-likelihood of held-out points."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from data_shards.io.errors import InputError
from trainer.mixture.em.e_step import EStep, Statistics
from trainer.mixture.em.m_step import m_step
from trainer.mixture.packed import unpack
from trainer.mixture.parameters import Parameters
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

# Prior strengths are 0 and D times powers of 2, with these exponents.
_EXPONENTS = (-8, 10)
INFLATIONS = tuple(2.0 ** (i / 4) for i in range(-4, 9))
_ONE = INFLATIONS.index(1.0)
# Standard errors by which an inflation must gain. Of twelve that do not help, the best gains one of them by chance.
_ERRORS = 2.0
# A variance of so many times the ridge, or less, is the ridge's.
_FLAT = 2.0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What held-out points chose; what the settings fix is kept."""

    prior_strength: float
    inflation: float
    log_likelihood: float
    """Nats per held-out point."""
    remarks: tuple[str, ...] = ()
    """Where the best value lies at the end of its range."""


def chosen_shrinkage(
    fits: Sequence[tuple[Statistics, EStep]], nu: float, settings: Settings, dim: int, ranks: Ranks
) -> Choice:
    """The choice by the held-out points of one fit or, in cross-validation, of several together.

    fits: statistics of all processes, and the E-step with the held-out points; nu: the prior strength of the fits. The
    likelihood has one maximum over the logarithm of the prior strength, so that a walk uphill from nu finds it; between
    powers of 2 a parabola does. Covariances are inflated only where that gains more than two standard errors, and by a
    factor below 1 only where no direction has its variance from the ridge alone.
    """
    inflations = INFLATIONS if settings.inflation is None else (settings.inflation,)

    def evaluated(strength: float) -> tuple[float, int]:
        """(held-out nats a point, place of the inflation) at one prior strength."""
        sums = torch.zeros(3 * len(inflations) + 1, dtype=torch.float64, device=fits[0][0].sums.device)
        least = 0
        for statistics, e_step in fits:
            e_step.forget()
            try:
                parameters = m_step(
                    statistics.copy(), settings.covariance_type, ridge=settings.reg_covar, prior_strength=strength
                )
                if len(inflations) > 1 and _has_flat_direction(parameters, settings.reg_covar):
                    least = _ONE
                values = e_step.held_out(parameters, inflations)
            except InputError:  # singular, on every process alike
                return -math.inf, 0
            gains = values - values[:, [_ONE if len(inflations) > 1 else 0]]
            sums += torch.cat([values.sum(0), gains.sum(0), gains.square().sum(0), values.new_tensor([len(values)])])
        ranks.sum_(sums)
        means, gain, square = (sums[:-1] / sums[-1]).view(3, -1)
        error = ((square - gain.square()).clamp(min=0) / sums[-1]).sqrt()
        best = least + int(means[least:].argmax())
        place = best if len(inflations) == 1 or gain[best] > _ERRORS * error[best] else _ONE
        return float(means[place]), place

    if settings.prior_strength is None and settings.covariance_type != "tied":
        nu, value, place, at_end = _walk(evaluated, nu / dim, dim)
    else:
        (value, place), at_end = evaluated(nu), False
    remarks = [f"prior_strength: the best is {nu / dim:.4g} D, the largest that is tried"] if at_end else []
    if settings.inflation is None and place in (0, len(INFLATIONS) - 1):
        remarks.append(f"inflation: the best is {INFLATIONS[place]:.4g}, at the end of what is tried")
    return Choice(prior_strength=nu, inflation=inflations[place], log_likelihood=value, remarks=tuple(remarks))


def _has_flat_direction(parameters: Parameters, ridge: float) -> bool:
    """Whether all components have no more than the ridge in some direction, such as a constant column.

    A factor below 1 would fit that direction better, at the cost of all others.
    """
    pooled = parameters.weights @ parameters.covariances.expand(parameters.n_components, -1)
    if parameters.covariance_type in ("full", "tied"):
        return float(torch.linalg.eigvalsh(unpack(pooled, parameters.dim))[0]) <= _FLAT * ridge
    return float(pooled.min()) <= _FLAT * ridge


def _walk(evaluated: Callable[[float], tuple[float, int]], start: float, dim: int) -> tuple[float, float, int, bool]:
    """(prior strength, its value, its inflation, whether it is the largest) of the best.

    start: where the walk begins, in units of D.
    """
    low, high = _EXPONENTS

    def strength(exponent: float) -> float:
        return 0.0 if exponent < low else dim * 2.0**exponent

    at = cache(lambda exponent: evaluated(strength(exponent)))
    place = min(max(round(math.log2(start)) if start > 0 else low - 1, low - 1), high)
    while True:
        best = max(range(max(low - 1, place - 1), min(high, place + 1) + 1), key=lambda exponent: at(exponent)[0])
        if best == place:
            break
        place = best
    if low < place < high:
        left, middle, right = (at(place + step)[0] for step in (-1, 0, 1))
        bend = left - 2 * middle + right
        if math.isfinite(bend) and bend < 0:
            vertex = place + 0.5 * (left - right) / bend
            if at(vertex)[0] > middle:
                return strength(vertex), *at(vertex), False
    return strength(place), *at(place), place == high
