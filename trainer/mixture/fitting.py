"""From points to a fitted mixture: checks, frame, k-means start, EM, and the closing choice of shrinkage."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_shards.errors import InputError
from trainer.mixture.dense import Exact, hard_statistics
from trainer.mixture.estimate import maximise
from trainer.mixture.expectation import Expectation
from trainer.mixture.expectation_maximisation import Progress, expectation_maximisation
from trainer.mixture.frame import Frame
from trainer.mixture.kmeans import kmeans
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, place_among_ranks, second_moment
from trainer.mixture.selection import choose
from trainer.mixture.settings import Settings
from trainer.mixture.statistics import Statistics
from trainer.mixture.truncated import Truncated
from trainer.process_group import Ranks


@dataclass(frozen=True)
class Fitted:
    """A finished fit.

    parameters: in the data's coordinates; truncation_loss: nats per training point that the truncated E-step left out
    at the end, or None where the E-step was exact; seconds: wall time by phase.
    """

    parameters: Parameters
    progress: Progress
    prior_strength: float
    inflation: float
    truncation_loss: float | None
    seconds: dict[str, float]


class _Laps:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = now - self._began
        self._began = now


def fit(
    train: Points,
    held_out: Points | None,
    *,
    settings: Settings,
    start: Parameters | None,
    ranks: Ranks,
    after: Callable[[Progress], None] | None,
) -> Fitted:
    """Fits to checked points, see `GaussianMixture.fit`."""
    laps = _Laps()
    dim = train.x.shape[1]
    total, _ = place_among_ranks(len(train), ranks)
    if total < settings.n_components:
        raise InputError(f"n_components: {settings.n_components} components for {total} points; use {total} or fewer")
    frame = Frame.of(train.x, ranks)
    working = torch.float64 if settings.products == "float64" else torch.float32
    everything = frame.enter(train, working)
    inner = replace(settings, reg_covar=settings.reg_covar / frame.scale**2)
    points, judges = _split(everything, settings, ranks) if held_out is None else (everything, held_out)
    if held_out is not None:
        judges = frame.enter(held_out, working)
    moment = second_moment(everything, ranks)
    expectation: Expectation = (
        Truncated(points, judges, moment, settings.products, settings.width)
        if settings.width
        else Exact(points, judges, moment, settings.products)
    )
    laps.end("prepare")
    parameters = _start(points, inner, ranks) if start is None else frame.enter_parameters(start.to(ranks.device))
    laps.end("k-means")
    progress = expectation_maximisation(Progress(parameters), expectation, inner, ranks, after)
    laps.end("EM")
    statistics = Exact(points, None, moment, settings.products).statistics(progress.parameters, 1.0).all_reduce(ranks)
    loss = None
    if settings.width:
        truncated = expectation.statistics(progress.parameters, 1.0).all_reduce(ranks)
        loss = statistics.mean_log_likelihood - truncated.mean_log_likelihood
    laps.end("exact pass")
    nu, inflation = settings.nu(dim), settings.inflation or 1.0
    if judges is not None and (settings.prior_strength is None or settings.inflation is None):
        nu, inflation = choose(statistics, expectation, inner, dim, ranks)
    if judges is not None and held_out is None:
        # The points that chose are worth fitting to as well.
        statistics = statistics.plus(_all_statistics(judges, progress.parameters, moment, settings, ranks))
    closed = maximise(statistics, settings.covariance_type, ridge=inner.reg_covar, prior_strength=nu)
    laps.end("choice")
    progress.history = [_in_data_units(record, dim, frame.scale) for record in progress.history]
    parameters = frame.leave_parameters(closed.inflated(inflation))
    return Fitted(parameters, progress, nu, inflation, loss, laps.seconds)


def _all_statistics(
    points: Points, parameters: Parameters, moment: Tensor, settings: Settings, ranks: Ranks
) -> Statistics:
    return Exact(points, None, moment, settings.products).statistics(parameters, 1.0).all_reduce(ranks)


def _split(points: Points, settings: Settings, ranks: Ranks) -> tuple[Points, Points | None]:
    """(fitted to, held out): a seeded choice of points that does not depend on how they are spread over processes.

    Nothing is held out where nothing is to be chosen, or where too few points would be left.
    """
    total, first = place_among_ranks(len(points), ranks)
    held_count = int(total * settings.validation_fraction)
    nothing_to_choose = settings.prior_strength is not None and settings.inflation is not None
    if nothing_to_choose or held_count == 0 or total - held_count < settings.n_components:
        return points, None
    generator = torch.Generator().manual_seed(settings.random_state + 1)
    held = torch.zeros(total, dtype=torch.bool)
    held[torch.randperm(total, generator=generator)[:held_count]] = True
    mine = held[first : first + len(points)].to(points.x.device)
    return points.rows(~mine), points.rows(mine)


def _start(points: Points, settings: Settings, ranks: Ranks) -> Parameters:
    """The mixture of the k-means clusters."""
    k, kind = settings.n_components, settings.covariance_type
    generator = torch.Generator().manual_seed(settings.random_state)
    _, labels = kmeans(
        points.x, k, iterations=settings.kmeans_iter, init=settings.init_params, generator=generator, ranks=ranks
    )
    statistics = hard_statistics(points, labels, kind, k).all_reduce(ranks)
    return maximise(statistics, kind, ridge=settings.reg_covar, prior_strength=settings.nu(points.x.shape[1]))


def _in_data_units(record: dict[str, float], dim: int, scale: float) -> dict[str, float]:
    """A record of nats per point in the frame, as nats per point of the data."""
    shift = -dim * math.log(scale)
    return {name: value + shift if name in ("log_likelihood", "held_out") else value for name, value in record.items()}
