"""The EM loop: annealing, convergence, history."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.mixture import dense
from trainer.mixture.estimate import maximise
from trainer.mixture.parameters import Parameters
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks


@dataclass(frozen=True)
class Points:
    """This process's points. x: (n, D); variance: (n, D), the spread of each where points are Gaussians, or None."""

    x: Tensor
    variance: Tensor | None = None


@dataclass
class Progress:
    """Where a fit stands after some iterations."""

    parameters: Parameters
    iteration: int = 0
    """EM iterations done."""
    history: list[dict[str, float]] = field(default_factory=list)
    """For each iteration: inverse temperature, and nats per point before its M-step (training, and held-out)."""
    converged: bool = False


def inverse_temperature(iteration: int, dim: int, settings: Settings) -> float:
    """beta of an iteration: geometric from annealing_start to 1 over annealing_iter iterations."""
    if iteration >= settings.annealing_iter:
        return 1.0
    start = min(1.0, 1.28 / dim) if settings.annealing_start is None else settings.annealing_start
    return start ** (1 - iteration / settings.annealing_iter)


def total_points(points: Points, ranks: Ranks) -> int:
    """The number of points of all processes."""
    return int(ranks.sum_(torch.tensor([float(len(points.x))], dtype=torch.float64, device=points.x.device)))


def second_moment(points: Points, ranks: Ranks) -> Tensor:
    """(D,): the mean square of all processes' points in each dimension."""
    x = points.x.double()
    moment = torch.cat([x.square().sum(0), x.new_tensor([len(x)])])
    if points.variance is not None:
        moment[:-1] += points.variance.double().sum(0)
    ranks.sum_(moment)
    return moment[:-1] / moment[-1]


def mean_log_likelihood(points: Points, parameters: Parameters, dtype: torch.dtype, ranks: Ranks) -> float:
    """Nats per point over all processes."""
    values = dense.log_likelihoods(points.x, points.variance, parameters, dtype=dtype)
    total = ranks.sum_(torch.stack([values.sum(), values.new_tensor(len(values))]))
    return float(total[0] / total[1])


def expectation_maximisation(
    progress: Progress,
    points: Points,
    held_out: Points | None,
    settings: Settings,
    ranks: Ranks,
    after: Callable[[Progress], None] | None = None,
) -> Progress:
    """Iterates from where `progress` stands until convergence or settings.max_iter.

    after: called after each iteration on every process (checkpoints, a progress bar).
    The relative gain is that of the held-out log-likelihood where there are held-out points, else of the training
    one; it counts only between two iterations at inverse temperature 1.
    """
    moment = second_moment(points, ranks)
    nu = 2.0 * points.x.shape[1] if settings.prior_strength is None else settings.prior_strength
    while progress.iteration < settings.max_iter and not progress.converged:
        began = time.monotonic()
        beta = inverse_temperature(progress.iteration, points.x.shape[1], settings)
        dtype = chosen_dtype(progress.parameters, moment, settings)
        statistics = dense.e_step(points.x, points.variance, progress.parameters, dtype=dtype, beta=beta)
        statistics.all_reduce(ranks)
        record = {"beta": beta, "log_likelihood": statistics.mean_log_likelihood}
        if held_out is not None:
            record["held_out"] = mean_log_likelihood(held_out, progress.parameters, dtype, ranks)
        progress.parameters = maximise(
            statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu
        )
        record["seconds"] = time.monotonic() - began
        progress.history.append(record)
        progress.iteration += 1
        progress.converged = _converged(progress.history, settings.tol)
        if after is not None:
            after(progress)
    return progress


def chosen_dtype(parameters: Parameters, moment: Tensor, settings: Settings) -> torch.dtype:
    """The number format of the products: as the settings say, or the fastest that is safe."""
    if settings.products == "auto":
        return dense.product_dtype(parameters, moment)
    return torch.float32 if settings.products == "float32" else torch.float64


def _converged(history: list[dict[str, float]], tol: float) -> bool:
    if len(history) < 2 or history[-1]["beta"] < 1 or history[-2]["beta"] < 1:
        return False
    name = "held_out" if "held_out" in history[-1] else "log_likelihood"
    now, before = history[-1][name], history[-2][name]
    return now - before < tol * max(abs(now), 1.0)
