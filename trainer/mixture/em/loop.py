"""The EM loop: annealing, convergence, history."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trainer.mixture.em.e_step import EStep
from trainer.mixture.em.m_step import m_step
from trainer.mixture.parameters import Parameters
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks


@dataclass
class EMState:
    """The state of a fit after some iterations."""

    parameters: Parameters
    """The mixture so far."""
    iteration: int = 0
    """EM iterations done."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One record an iteration: beta, the inverse temperature; log_likelihood and, at beta = 1, held_out, in nats per
    point, of the mixture before the iteration's M-step; seconds."""
    converged: bool = False
    """Whether the last gain was below the tolerance."""
    before: dict[str, float] | None = None
    """The record of the iteration before the first, where the fit continues another."""


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
    between two iterations at inverse temperature 1. A converged fit keeps the parameters that were scored.
    after: called after each iteration on every process.
    """
    while state.iteration < settings.max_iter and not state.converged:
        began = time.monotonic()
        parameters = state.parameters
        beta = inverse_temperature(state.iteration, parameters.dim, settings)
        statistics = e_step.statistics(parameters, beta).all_reduce(ranks)
        record = {"beta": beta, "log_likelihood": statistics.mean_log_likelihood}
        if beta == 1:
            held_out = ranks.sum_(e_step.held_out(parameters))
            if held_out[1] > 0:
                record["held_out"] = float(held_out[0] / held_out[1])
        state.history.append(record)
        state.iteration += 1
        earlier = [] if state.before is None else [state.before]
        state.converged = _converged([*earlier, *state.history[-2:]], settings.tol)
        if not state.converged:
            state.parameters = m_step(
                statistics,
                settings.covariance_type,
                ridge=settings.reg_covar,
                prior_strength=settings.nu(parameters.dim),
            )
        record["seconds"] = time.monotonic() - began
        if after is not None:
            after(state)
    return state


def _converged(history: list[dict[str, float]], tol: float) -> bool:
    if len(history) < 2 or history[-1]["beta"] < 1 or history[-2]["beta"] < 1:
        return False
    name = "held_out" if "held_out" in history[-1] else "log_likelihood"
    now, before = history[-1][name], history[-2].get(name, -math.inf)
    return now - before < tol * max(abs(now), 1.0)
