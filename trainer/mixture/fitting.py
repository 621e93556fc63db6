"""From points to a fitted mixture: checks, frame, k-means start, EM, and the closing choice of shrinkage."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.errors import InputError
from trainer.mixture import dense
from trainer.mixture.estimate import maximise
from trainer.mixture.expectation_maximisation import (
    Points,
    Progress,
    chosen_dtype,
    expectation_maximisation,
    second_moment,
    total_points,
)
from trainer.mixture.frame import Frame
from trainer.mixture.kmeans import kmeans
from trainer.mixture.parameters import Parameters
from trainer.mixture.selection import choose
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks


@dataclass(frozen=True)
class Fitted:
    """A finished fit. parameters: in the data's coordinates; seconds: wall time by phase."""

    parameters: Parameters
    progress: Progress
    prior_strength: float
    inflation: float
    seconds: dict[str, float]


def checked(x: Tensor, name: str, dim: int | None = None) -> Tensor:
    """`x` if it is a finite (n, D) float tensor. Raises InputError with the name otherwise."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(
            f"{name}: shape {tuple(x.shape)} is not (points, dimensions); use a matrix with one row a point"
        )
    if not x.is_floating_point():
        x = x.double()
    if dim is not None and x.shape[1] != dim:
        raise InputError(f"{name}: {x.shape[1]} dimensions, where the mixture has {dim}")
    return x


def _checked_points(
    x: Tensor, variance: Tensor | None, name: str, dim: int | None, device: torch.device, ranks: Ranks
) -> Points:
    """Points that are finite on every process."""
    x = checked(x, name, dim).to(device)
    if ranks.any(not bool(torch.isfinite(x).all())):
        raise InputError(f"{name}: some values are NaN or infinite; remove those points")
    if variance is None:
        return Points(x)
    variance = checked(variance, f"{name}'s variance", x.shape[1]).to(device)
    if len(variance) != len(x):
        raise InputError(f"{name}'s variance: {len(variance)} rows for {len(x)} points; give one row a point")
    if ranks.any(not bool((torch.isfinite(variance) & (variance >= 0)).all())):
        raise InputError(f"{name}'s variance: some values are negative, NaN or infinite")
    return Points(x, variance)


def _split(points: Points, fraction: float, seed: int, ranks: Ranks) -> tuple[Points, Points]:
    """(kept, held out): a seeded choice of whole points that does not depend on how they are spread over processes."""
    sizes = torch.zeros(ranks.world_size, dtype=torch.float64, device=points.x.device)
    sizes[ranks.rank] = len(points.x)
    ranks.sum_(sizes)
    total, first = int(sizes.sum()), int(sizes[: ranks.rank].sum())
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed + 1))[: int(total * fraction)]
    held = torch.zeros(total, dtype=torch.bool)
    held[chosen] = True
    mine = held[first : first + len(points.x)].to(points.x.device)
    return _rows(points, ~mine), _rows(points, mine)


def _rows(points: Points, mask: Tensor) -> Points:
    return Points(points.x[mask], None if points.variance is None else points.variance[mask])


def fit(
    x: Tensor,
    variance: Tensor | None,
    held_out_x: Tensor | None,
    held_out_variance: Tensor | None,
    *,
    settings: Settings,
    start: Parameters | None,
    ranks: Ranks,
    after: Callable[[Progress], None] | None,
) -> Fitted:
    """See `GaussianMixture.fit`."""
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def lap(phase: str) -> None:
        nonlocal began
        seconds[phase] = time.monotonic() - began
        began = time.monotonic()

    points = _checked_points(x, variance, "x", None, ranks.device, ranks)
    dim = points.x.shape[1]
    total = total_points(points, ranks)
    if total < settings.n_components:
        raise InputError(f"n_components: {settings.n_components} components for {total} points; use {total} or fewer")
    held_out = None
    if held_out_x is not None:
        held_out = _checked_points(held_out_x, held_out_variance, "held_out", dim, ranks.device, ranks)
    frame = Frame.of(points.x, ranks)
    working = torch.float64 if settings.products == "float64" else torch.float32
    inner = _inner_settings(settings, frame)
    points = _entered(points, frame, working)
    everything, chooses = points, settings.prior_strength is None or settings.inflation is None
    if held_out is not None:
        held_out = _entered(held_out, frame, working)
    elif (
        chooses
        and int(total * settings.validation_fraction) >= 1
        and total * (1 - settings.validation_fraction) >= settings.n_components
    ):
        points, held_out = _split(points, settings.validation_fraction, settings.random_state, ranks)
    lap("prepare")
    if start is None:
        parameters = _start(points, inner, ranks)
    else:
        parameters = frame.enter_parameters(start.to(ranks.device))
    lap("k-means")
    progress = expectation_maximisation(Progress(parameters), points, held_out, inner, ranks, after)
    lap("EM")
    nu = 2.0 * dim if settings.prior_strength is None else settings.prior_strength
    inflation = settings.inflation or 1.0
    if chooses and held_out is not None:
        moment = second_moment(everything, ranks)
        dtype = chosen_dtype(progress.parameters, moment, inner)
        statistics = dense.e_step(points.x, points.variance, progress.parameters, dtype=dtype).all_reduce(ranks)
        nu, inflation = choose(statistics, held_out, inner, dtype, ranks)
        if everything is not points:
            held = dense.e_step(held_out.x, held_out.variance, progress.parameters, dtype=dtype).all_reduce(ranks)
            statistics = statistics.plus(held)
        progress.parameters = maximise(statistics, settings.covariance_type, ridge=inner.reg_covar, prior_strength=nu)
    progress.parameters = progress.parameters.inflated(inflation)
    lap("choice")
    progress.history = [_in_data_units(record, dim, frame.scale) for record in progress.history]
    return Fitted(frame.leave_parameters(progress.parameters), progress, nu, inflation, seconds)


def _inner_settings(settings: Settings, frame: Frame) -> Settings:
    from dataclasses import replace

    return replace(settings, reg_covar=settings.reg_covar / frame.scale**2)


def _entered(points: Points, frame: Frame, dtype: torch.dtype) -> Points:
    variance = None if points.variance is None else (points.variance.double() / frame.scale**2).to(dtype)
    return Points(frame.enter(points.x, dtype), variance)


def _start(points: Points, settings: Settings, ranks: Ranks) -> Parameters:
    """The mixture of the k-means clusters."""
    generator = torch.Generator().manual_seed(settings.random_state)
    _, labels = kmeans(
        points.x, settings.n_components, iterations=settings.kmeans_iter, init=settings.init_params,
        generator=generator, ranks=ranks,
    )  # fmt: skip
    statistics = dense.hard_statistics(
        points.x, points.variance, labels, settings.covariance_type, settings.n_components
    ).all_reduce(ranks)
    nu = 2.0 * points.x.shape[1] if settings.prior_strength is None else settings.prior_strength
    return maximise(statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu)


def _in_data_units(record: dict[str, float], dim: int, scale: float) -> dict[str, float]:
    """A record of nats per point in the frame, as nats per point of the data."""
    import math

    shift = -dim * math.log(scale)
    return {name: value + shift if name in ("log_likelihood", "held_out") else value for name, value in record.items()}
