"""The EM loop: annealing, convergence, components that lost their points, history."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from trainer.mixture.em.e_step import EStep, Statistics
from trainer.mixture.em.m_step import m_step, reseed
from trainer.mixture.parameters import Parameters
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

# How often a converged mixture gets its lost components back, as long as that helps.
_MOST_REVIVALS = 3
# A component with fewer expected points does not earn its place.
FEWEST_POINTS = 1.0


@dataclass
class EMState:
    """The state of a fit after some iterations."""

    parameters: Parameters
    """The mixture so far."""
    iteration: int = 0
    """EM iterations done."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One record an iteration: beta, the inverse temperature; log_likelihood and, at beta = 1, held_out, in nats per
    point, of the mixture before the iteration's M-step; revived, components that it replaced; seconds."""
    converged: bool = False
    """Whether the last gain was below the tolerance."""
    before: dict[str, float] | None = None
    """The record of the iteration before the first, where the fit continues another."""
    nu: float | None = None
    """The prior strength of the M-steps; None is that of the settings."""
    round: int = 0
    """How often the prior strength was chosen anew."""
    revivals: int = 0
    """How often lost components were replaced."""
    without: Parameters | None = None
    """The converged mixture before the last of these times, to return to where it does not help."""
    without_score: float = -math.inf
    """Its held-out log-likelihood."""


def inverse_temperature(iteration: int, dim: int, settings: Settings) -> float:
    """beta of an iteration: geometric from annealing_start to 1 over annealing_iter iterations."""
    if iteration >= settings.annealing_iter:
        return 1.0
    start = min(1.0, 6.4 / dim) if settings.annealing_start is None else settings.annealing_start
    return start ** (1 - iteration / settings.annealing_iter)


def expectation_maximisation(
    state: EMState,
    e_step: EStep,
    settings: Settings,
    ranks: Ranks,
    after: Callable[[EMState], None] | None = None,
) -> EMState:
    """Iterates from `state` until convergence or settings.max_iter, and returns `state`, changed in place.

    The relative gain is that of the held-out log-likelihood where there are held-out points, else of the training one,
    between two iterations at inverse temperature 1. A converged fit keeps the parameters that were scored. Where
    held-out points say that it helps, components that lost their points are replaced by parts of heavy ones.
    after: called after each iteration on every process.
    """
    while state.iteration < settings.max_iter and not state.converged:
        began = time.monotonic()
        parameters = state.parameters
        beta = inverse_temperature(state.iteration, parameters.dim, settings)
        statistics = e_step.statistics(parameters, beta).all_reduce(ranks)
        record = {"beta": beta, "log_likelihood": statistics.mean_log_likelihood}
        if beta == 1 and (held_out := mean_held_out(parameters, e_step, ranks)) is not None:
            record["held_out"] = held_out
        state.history.append(record)
        state.iteration += 1
        earlier = [] if state.before is None else [state.before]
        state.converged = _converged([*earlier, *state.history[-3:]], settings.tol)
        if state.converged:
            _revive(state, statistics, settings, record)
        else:
            state.parameters = _maximised(state, statistics, settings)
        record["seconds"] = time.monotonic() - began
        if after is not None:
            after(state)
    if state.without is not None and not state.converged:
        # The iterations ended before the revived components could show that they help.
        state.parameters, state.without = state.without, None
    return state


def mean_held_out(parameters: Parameters, e_step: EStep, ranks: Ranks) -> float | None:
    """Nats per held-out point of all processes; None where there are none."""
    values = e_step.held_out(parameters)
    sums = ranks.sum_(torch.stack([values.sum(), values.new_tensor(len(values))]))
    return float(sums[0] / sums[1]) if sums[1] > 0 else None


def _maximised(state: EMState, statistics: Statistics, settings: Settings) -> Parameters:
    nu = settings.nu(state.parameters.dim) if state.nu is None else state.nu
    return m_step(statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu)


def _revive(state: EMState, statistics: Statistics, settings: Settings, record: dict[str, float]) -> None:
    """Replaces the lost components of a converged mixture, or returns to the mixture before where that did not help."""
    if "held_out" not in record or not settings.has_choices:
        return
    score, helped = record["held_out"], record["held_out"] > state.without_score
    if state.without is not None and not helped:
        state.parameters, state.without = state.without, None
        return
    counts = statistics.counts.clone()
    lost = int((counts < FEWEST_POINTS).sum())
    if lost == 0 or state.revivals >= _MOST_REVIVALS or state.iteration + 2 > settings.max_iter:
        state.without = None
        return
    state.without, state.without_score = state.parameters, score
    state.revivals += 1
    state.parameters = reseed(_maximised(state, statistics, settings), counts, FEWEST_POINTS)
    state.converged, record["revived"] = False, float(lost)


def _converged(history: list[dict[str, float]], tol: float) -> bool:
    if len(history) < 2 or history[-1]["beta"] < 1 or history[-2]["beta"] < 1 or "revived" in history[-2]:
        return False
    name = "held_out" if "held_out" in history[-1] else "log_likelihood"
    now, before = history[-1][name], history[-2].get(name, -math.inf)
    return now - before < tol * max(abs(now), 1.0)


def printed_every(interval: int, verbose: int) -> Callable[[EMState], None]:
    """A callback after EM iterations that prints every `interval`-th one, and the last."""

    def after(state: EMState) -> None:
        if state.iteration % interval == 0 or state.converged:
            record = state.history[-1]
            seconds = f"  {record['seconds']:.2f} s" if verbose > 1 else ""
            end = "  converged" if state.converged else ""
            print(f"iteration {state.iteration}: {record['log_likelihood']:.5f} nats a point{seconds}{end}")

    return after
