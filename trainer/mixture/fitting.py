"""From points to a fitted mixture: checks, frame, k-means start, EM, and the closing choice of shrinkage."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.engines.cpu import keep_freed_memory
from trainer.mixture.checkpoints import Checkpoints
from trainer.mixture.em.dense import Exact, hard_statistics
from trainer.mixture.em.e_step import Expectation
from trainer.mixture.em.loop import Progress, expectation_maximisation
from trainer.mixture.em.m_step import maximise
from trainer.mixture.em.truncated import Truncated
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, place_among_ranks, second_moment
from trainer.mixture.selection import choose
from trainer.mixture.settings import Settings
from trainer.mixture.standardisation import Frame
from trainer.mixture.start.growth import grown
from trainer.mixture.start.kmeans import kmeans
from trainer.mixture.start.kmeans_checkpoint import KMeansCheckpoint
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
    after: Callable[[Progress], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
) -> Fitted:
    """Fits to checked points, see `GaussianMixture.fit`."""
    laps = _Laps()
    if train.x.device.type == "cpu":
        keep_freed_memory()
    total, _ = place_among_ranks(len(train), ranks)
    if total < settings.n_components:
        raise InputError(f"n_components: {settings.n_components} components for {total} points; use {total} or fewer")
    frame = Frame.of(train.x, ranks)
    inner = replace(settings, reg_covar=settings.reg_covar / frame.scale**2)
    data = _divided(frame, train, held_out, inner, ranks)
    laps.end("prepare")
    saved = None
    if checkpoint is not None:
        moments = [f"{value:.6g}" for value in (*frame.location.tolist(), *data.moment.tolist())]
        fingerprint = {"settings": asdict(settings), "points": total, "moments": moments}
        saved = Checkpoints(checkpoint, fingerprint, ranks, checkpoint_seconds)
    expectation = data.expectation(settings)
    progress = saved.resume(expectation, settings.covariance_type) if saved is not None else None
    if progress is None:
        progress = Progress(
            kmeans_start(data.points, inner, ranks, None if saved is None else saved.kmeans)
            if start is None
            else frame.enter_parameters(grown(start.to(ranks.device), settings.n_components))
        )
    laps.end("k-means")

    expectation_maximisation(progress, expectation, inner, ranks, _after_iteration(saved, expectation, frame, after))
    laps.end("EM")
    closed, nu, inflation, loss = _close(data, progress.parameters, expectation, inner, ranks, laps)
    progress.parameters = closed
    del expectation  # with thousands of components it and the former parameters are a third of all memory
    progress.history = _in_data_units(progress.history, frame.log_density_shift)
    return Fitted(frame.leave_parameters(closed), progress, nu, inflation, loss, laps.seconds)


def _after_iteration(
    saved: Checkpoints | None, expectation: Expectation, frame: Frame, after: Callable[[Progress], None] | None
) -> Callable[[Progress], None]:
    """What happens after each iteration: a checkpoint, and the caller's wish with a history in units of the data."""

    def both(progress: Progress) -> None:
        if saved is not None:
            saved.save(progress, expectation)
        if after is not None:
            after(replace(progress, history=_in_data_units(progress.history, frame.log_density_shift)))

    return both


@dataclass(frozen=True)
class _Data:
    """Points in the frame. points: fitted to; judges: held out; returning: whether the judges join the last M-step."""

    points: Points
    judges: Points | None
    returning: bool
    moment: Tensor

    def expectation(self, settings: Settings) -> Expectation:
        """The E-step that the settings ask for."""
        if settings.width:
            return Truncated(self.points, self.judges, self.moment, settings.products, settings.width)
        return Exact(self.points, self.judges, self.moment, settings.products)


def _divided(frame: Frame, train: Points, held_out: Points | None, settings: Settings, ranks: Ranks) -> _Data:
    everything = frame.enter(train, settings.working_dtype)
    moment = second_moment(everything, ranks)
    if held_out is not None:
        return _Data(everything, frame.enter(held_out, settings.working_dtype), False, moment)
    points, judges = _split(everything, settings, ranks)
    return _Data(points, judges, judges is not None, moment)


def _close(
    data: _Data, parameters: Parameters, expectation: Expectation, settings: Settings, ranks: Ranks, laps: _Laps
) -> tuple[Parameters, float, float, float | None]:
    """The last M-step, from an exact E-step: (parameters, prior strength, inflation, truncation loss)."""
    truncated = None
    if settings.width:
        truncated = expectation.statistics(parameters, 1.0).all_reduce(ranks).mean_log_likelihood
    statistics = expectation.exact("train", parameters).all_reduce(ranks)
    loss = None if truncated is None else statistics.mean_log_likelihood - truncated
    laps.end("exact pass")
    nu, inflation = settings.nu(parameters.dim), settings.inflation or 1.0
    if data.judges is not None and settings.has_choices:
        nu, inflation = choose(statistics, expectation, settings, parameters.dim, ranks)
    if data.judges is not None and data.returning:
        expectation.forget()
        statistics.add_(expectation.exact("held_out", parameters).all_reduce(ranks))
    expectation.forget()
    closed = maximise(statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu)
    laps.end("choice")
    return closed.inflated(inflation), nu, inflation, loss


def _split(points: Points, settings: Settings, ranks: Ranks) -> tuple[Points, Points | None]:
    """(fitted to, held out): a seeded choice of points that does not depend on how they are spread over processes.

    Nothing is held out where nothing is to be chosen, or where too few points would be left.
    """
    total, first = place_among_ranks(len(points), ranks)
    held_count = int(total * settings.validation_fraction)
    if not settings.has_choices or held_count == 0 or total - held_count < settings.n_components:
        return points, None
    generator = torch.Generator().manual_seed(settings.random_state + 1)
    held = torch.zeros(total, dtype=torch.bool)
    held[torch.randperm(total, generator=generator)[:held_count]] = True
    mine = held[first : first + len(points)].to(points.x.device)
    return points.rows(~mine), points.rows(mine)


def kmeans_start(
    points: Points, settings: Settings, ranks: Ranks, checkpoint: KMeansCheckpoint | None = None
) -> Parameters:
    """The mixture of the k-means clusters. checkpoint: see `kmeans`."""
    k, kind = settings.n_components, settings.covariance_type
    generator = torch.Generator().manual_seed(settings.random_state)
    _, labels = kmeans(
        points.x,
        k,
        iterations=settings.kmeans_iter,
        init=settings.init_params,
        generator=generator,
        ranks=ranks,
        checkpoint=checkpoint,
    )
    statistics = hard_statistics(points, labels, kind, k).all_reduce(ranks)
    return maximise(statistics, kind, ridge=settings.reg_covar, prior_strength=settings.nu(points.x.shape[1]))


def _in_data_units(history: list[dict[str, float]], shift: float) -> list[dict[str, float]]:
    """Records of nats per point in the frame, as nats per point of the data."""
    shifted = ("log_likelihood", "held_out")
    return [{name: value + shift * (name in shifted) for name, value in record.items()} for record in history]
