"""From points to a fitted mixture: standardisation, k-means start, EM, and the final choice of shrinkage."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.engines.cpu import keep_freed_memory
from trainer.mixture.checkpoints import Checkpoints
from trainer.mixture.em.dense import DenseEStep, hard_statistics
from trainer.mixture.em.e_step import EStep, Statistics
from trainer.mixture.em.loop import EMState, expectation_maximisation
from trainer.mixture.em.m_step import grow, m_step
from trainer.mixture.em.truncated import TruncatedEStep
from trainer.mixture.fitted import FitRecord, FittedMixture
from trainer.mixture.kmeans import KMeansCheckpoint, kmeans
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, Standardisation, place_among_ranks, second_moment
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

# Candidates of the choice on held-out points. STRENGTHS: in units of D.
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
INFLATIONS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.45, 1.6, 1.8, 2.0)
# The weight of batch t is (t + 2)^-0.7; any power in (0.5, 1] converges, and 0.7 forgets the start soon.
_FORGETTING = 0.7


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a fit starts from, in the data's coordinates; what is None follows from k-means.

    Where all three are given there is no k-means, and components that are missing come from splitting the heaviest.
    """

    weights: Tensor | None = None
    """(K,), summing to 1."""
    means: Tensor | None = None
    """(K, D)."""
    covariances: Tensor | None = None
    """In the packed shape of `Parameters.covariances`."""
    record: dict[str, float] | None = None
    """The last record of the history of the fit that this one continues, so that convergence is seen at once."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to k-means."""
        return self.weights is not None and self.means is not None and self.covariances is not None

    def grown(self, covariance_type: str, n_components: int) -> Parameters:
        """The mixture of a complete start, in the data's coordinates.

        The heaviest components are split up to n_components.
        """
        assert self.weights is not None
        assert self.means is not None
        assert self.covariances is not None
        whole = Parameters(
            covariance_type=covariance_type, weights=self.weights, means=self.means, covariances=self.covariances
        )
        return grow(whole, n_components)

    @staticmethod
    def at(parameters: Parameters) -> "Start":
        """From a mixture of the same number of components or fewer."""
        return Start(weights=parameters.weights, means=parameters.means, covariances=parameters.covariances)


class _Phases:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._began
        self._began = now


def fit_mixture(
    train: Points,
    held_out: Points | None,
    *,
    settings: Settings,
    start: Start | None = None,
    ranks: Ranks,
    after: Callable[[EMState], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
) -> FittedMixture:
    """Fits a mixture to the points of all processes; what `GaussianMixture.fit` does, with all that a job needs.

    train: this process's slice, see `checked_points`; where points are Gaussians q(z|x) = N(x, diag(variance))
    (equation 11), EM raises a lower bound of the mean of log q_hat under the aggregate posterior. held_out: points that
    decide convergence, prior strength and inflation; None splits some off, see `Settings.validation_fraction`.
    after: called after each iteration on every process. checkpoint: a folder for checkpoints, at most one in
    checkpoint_seconds; a fit with the same settings and points continues from it.
    Raises InputError where there are fewer points than components, or a start of more components than wanted.
    """
    phases = _Phases()
    if train.x.device.type == "cpu":
        keep_freed_memory()
    total, _ = place_among_ranks(len(train), ranks)
    if total < settings.n_components:
        message = f"{settings.n_components} components for {total} points; use {total} or fewer"
        raise InputError(message, parameter="n_components")
    standardisation = Standardisation.of(train.x, ranks)
    inner = replace(settings, reg_covar=settings.reg_covar / standardisation.scale**2)
    inner = inner.for_points(total, train.x.shape[1])
    data = _divided(standardisation, train, held_out, inner, ranks)
    phases.end("prepare")
    moments = [f"{value:.6g}" for value in (*standardisation.location.tolist(), *data.moment.tolist())]
    best: tuple[float, FittedMixture] | None = None
    for place in range(1 if start is not None and start.is_complete else settings.n_init):
        one = replace(inner, random_state=settings.random_state + place)
        saved = None
        if checkpoint is not None:
            fingerprint = {"settings": asdict(settings), "points": total, "moments": moments, "start": place}
            saved = Checkpoints(checkpoint, fingerprint, ranks, checkpoint_seconds)
        found = _fit_from_one_start(data, start, standardisation, one, ranks, saved, after, phases)
        if best is None or found[0] > best[0]:
            best = found
    assert best is not None
    return replace(best[1], settings=settings)


def _fit_from_one_start(
    data: "_Data",
    start: Start | None,
    standardisation: Standardisation,
    settings: Settings,
    ranks: Ranks,
    saved: Checkpoints | None,
    after: Callable[[EMState], None] | None,
    phases: _Phases,
) -> tuple[float, FittedMixture]:
    """(log-likelihood that starts are compared by, the fit)."""
    e_step = data.e_step(settings)
    state = saved.resume(e_step, settings.covariance_type) if saved is not None else None
    if state is None:
        state = EMState(_started(start, standardisation, data, settings, ranks, saved))
        if start is not None and start.record is not None:
            state.before = _in_data_units([start.record], -standardisation.log_density_shift)[0]
    phases.end("k-means")

    expectation_maximisation(state, e_step, settings, ranks, _after_iteration(saved, e_step, standardisation, after))
    phases.end("EM")
    final = _finish(data, state, e_step, settings, ranks, phases)
    # With thousands of components the E-step and the former parameters are a third of all memory.
    converged, n_iter, history = state.converged, state.iteration, state.history
    del e_step, state
    record = FitRecord(
        converged=converged,
        n_iter=n_iter,
        history=_in_data_units(history, standardisation.log_density_shift),
        prior_strength=final.prior_strength,
        inflation=final.inflation,
        truncation_loss=final.truncation_loss,
        seconds=phases.seconds,
    )
    parameters = standardisation.invert(final.parameters)
    return final.log_likelihood, FittedMixture(parameters=parameters, settings=settings, record=record)


def _after_iteration(
    saved: Checkpoints | None,
    e_step: EStep,
    standardisation: Standardisation,
    after: Callable[[EMState], None] | None,
) -> Callable[[EMState], None]:
    """What happens after each iteration: a checkpoint, and the caller's callback with a history in the data's units."""

    def both(state: EMState) -> None:
        if saved is not None:
            saved.save(state, e_step)
        if after is not None:
            after(replace(state, history=_in_data_units(state.history, standardisation.log_density_shift)))

    return both


@dataclass(frozen=True)
class _Data:
    """Standardised points. points: fitted to; held_out: decide the choices; returning: whether the held-out points join
    the last M-step."""

    points: Points
    held_out: Points | None
    returning: bool
    moment: Tensor

    def e_step(self, settings: Settings) -> EStep:
        """The E-step of these settings."""
        if settings.width:
            return TruncatedEStep(self.points, self.held_out, self.moment, settings.products, settings.width)
        return DenseEStep(self.points, self.held_out, self.moment, settings.products)


def _divided(
    standardisation: Standardisation, train: Points, held_out: Points | None, settings: Settings, ranks: Ranks
) -> _Data:
    def made(source: Points, chosen: Tensor | None = None) -> Points:
        return standardisation.of_some(source, chosen, settings.working_dtype)

    chosen = None if held_out is not None else _held_out_rows(len(train), settings, ranks)
    if chosen is None:
        points = made(train)
        moment = second_moment(points, ranks)
        return _Data(points, None if held_out is None else made(held_out), False, moment)
    points, split_off = made(train, ~chosen), made(train, chosen)
    return _Data(points, split_off, True, second_moment(points, ranks))


def _held_out_rows(count: int, settings: Settings, ranks: Ranks) -> Tensor | None:
    """(count,) flags: a seeded choice of points that does not depend on how they are spread over processes.

    None where nothing is to be chosen, or where too few points would be left to fit to.
    """
    total, first = place_among_ranks(count, ranks)
    held_count = int(total * settings.validation_fraction)
    if not settings.has_choices or held_count == 0 or total - held_count < settings.n_components:
        return None
    generator = torch.Generator().manual_seed(settings.random_state + 1)
    held = torch.zeros(total, dtype=torch.bool)
    held[torch.randperm(total, generator=generator)[:held_count]] = True
    return held[first : first + count].to(ranks.device)


def _started(
    start: Start | None,
    standardisation: Standardisation,
    data: _Data,
    settings: Settings,
    ranks: Ranks,
    saved: Checkpoints | None,
) -> Parameters:
    """The first parameters, of standardised points."""
    names = ("weights", "means", "covariances")
    given = {name: getattr(start, name).to(ranks.device) for name in names if getattr(start, name, None) is not None}
    if start is not None and start.is_complete:
        whole = start.grown(settings.covariance_type, settings.n_components).to(ranks.device)
        return standardisation.apply_to_parameters(whole)
    found = kmeans_start(data.points, settings, ranks, None if saved is None else saved.kmeans)
    if not given:
        return found
    return standardisation.apply_to_parameters(replace(standardisation.invert(found), **given))


def kmeans_start(
    points: Points, settings: Settings, ranks: Ranks, checkpoint: KMeansCheckpoint | None = None
) -> Parameters:
    """The mixture of the k-means clusters. checkpoint: see `kmeans`."""
    k, kind = settings.n_components, settings.covariance_type
    generator = torch.Generator().manual_seed(settings.random_state)
    centroids, labels = kmeans(
        points.x,
        k,
        iterations=settings.kmeans_iter,
        init=settings.init_params,
        generator=generator,
        ranks=ranks,
        checkpoint=checkpoint,
    )
    statistics = hard_statistics(points, labels, kind, centroids).all_reduce(ranks)
    return m_step(statistics, kind, ridge=settings.reg_covar, prior_strength=settings.nu(points.x.shape[1]))


@dataclass(frozen=True, kw_only=True)
class _Final:
    """The end of one fit, for standardised points. log_likelihood: nats a point, which starts are compared by."""

    parameters: Parameters
    prior_strength: float
    inflation: float
    truncation_loss: float | None = None
    log_likelihood: float


def _finish(data: _Data, state: EMState, e_step: EStep, settings: Settings, ranks: Ranks, phases: _Phases) -> _Final:
    """The choice of shrinkage and the last M-step, from an exact E-step.

    Where nothing is chosen and the E-step of EM was exact, the last M-step is that of the iteration that converged, and
    a fit that was cut off by max_iter ends with the M-step that it had.
    """
    parameters, nu, inflation = state.parameters, settings.nu(state.parameters.dim), settings.inflation or 1.0
    chooses = data.held_out is not None and settings.has_choices
    if settings.max_iter == 0 or not (chooses or settings.width or state.converged):
        start_or_last = parameters if settings.max_iter == 0 else parameters.inflated(inflation)
        log_likelihood = state.history[-1]["log_likelihood"] if state.history else -math.inf
        return _Final(parameters=start_or_last, prior_strength=nu, inflation=inflation, log_likelihood=log_likelihood)
    truncated = None
    if settings.width:
        truncated = e_step.statistics(parameters, 1.0).all_reduce(ranks).mean_log_likelihood
    statistics = e_step.exact("train", parameters).all_reduce(ranks)
    loss = None if truncated is None else statistics.mean_log_likelihood - truncated
    # As `lower_bound_`: of the mixture before its last M-step.
    log_likelihood = statistics.mean_log_likelihood
    phases.end("exact pass")
    if chooses:
        nu, inflation, log_likelihood = _chosen_shrinkage(statistics, e_step, settings, parameters.dim, ranks)
    elif data.held_out is not None:
        sums = ranks.sum_(e_step.held_out(parameters)).tolist()
        log_likelihood = sums[0] / sums[1]
    if data.held_out is not None and data.returning:
        e_step.forget()
        statistics.add_(e_step.exact("held_out", parameters).all_reduce(ranks))
    e_step.forget()
    final = m_step(statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu)
    phases.end("choice")
    return _Final(
        parameters=final.inflated(inflation),
        prior_strength=nu,
        inflation=inflation,
        truncation_loss=loss,
        log_likelihood=log_likelihood,
    )


def _chosen_shrinkage(
    statistics: Statistics, e_step: EStep, settings: Settings, dim: int, ranks: Ranks
) -> tuple[float, float, float]:
    """(prior strength, inflation, held-out nats a point) with the best held-out log-likelihood.

    What the settings fix is kept.

    The likelihood has one maximum over the prior strength, so that a walk uphill from that of the fit finds it.
    """
    strengths = [dim * s for s in STRENGTHS] if settings.prior_strength is None else [settings.prior_strength]
    inflations = INFLATIONS if settings.inflation is None else (settings.inflation,)

    @cache
    def best_inflation(place: int) -> tuple[float, float]:
        """(held-out nats a point, inflation) for one strength."""
        e_step.forget()
        parameters = m_step(
            statistics.copy(), settings.covariance_type, ridge=settings.reg_covar, prior_strength=strengths[place]
        )
        sums = ranks.sum_(e_step.held_out(parameters, inflations)).tolist()
        return max(zip((value / sums[-1] for value in sums[:-1]), inflations, strict=True))

    place = min(range(len(strengths)), key=lambda i: abs(strengths[i] - settings.nu(dim)))
    while True:
        around = range(max(0, place - 1), min(len(strengths), place + 2))
        best = max(around, key=best_inflation)
        if best == place:
            log_likelihood, inflation = best_inflation(place)
            return strengths[place], inflation, log_likelihood
        place = best


def _in_data_units(history: list[dict[str, float]], shift: float) -> list[dict[str, float]]:
    """Records of nats per standardised point, as nats per point of the data."""
    shifted = ("log_likelihood", "held_out")
    return [{name: value + shift * (name in shifted) for name, value in record.items()} for record in history]


class Stepwise:
    """Stepwise EM: one M-step a batch, for points that do not fit in memory (Cappe and Moulines 2009).

    Keeps running sufficient statistics per point. The first batch sets the standardisation and, by k-means, the start.

    start: parameters in the data's coordinates to continue from, or None for k-means.
    """

    def __init__(self, settings: Settings, first: Points, start: Parameters | None, ranks: Ranks) -> None:
        self._ranks, self._standardisation = ranks, Standardisation.of(first.x, ranks)
        self._settings = replace(settings, reg_covar=settings.reg_covar / self._standardisation.scale**2)
        if start is None:
            self._parameters = kmeans_start(self._standardised(first), self._settings, ranks)
        else:
            self._parameters = self._standardisation.apply_to_parameters(start.to(ranks.device))
        self._running: Statistics | None = None
        self._steps, self._seen = 0, 0.0

    @property
    def parameters(self) -> Parameters:
        """The mixture so far, in the data's coordinates."""
        return self._standardisation.invert(self._parameters)

    def step(self, batch: Points) -> float:
        """One step by this process's part of a batch. Returns the batch's nats per point before the step."""
        points = self._standardised(batch)
        total, _ = place_among_ranks(len(points), self._ranks)
        products = self._settings.for_points(total, points.x.shape[1]).products
        exact = DenseEStep(points, None, second_moment(points, self._ranks), products)
        batch_statistics = exact.statistics(self._parameters, 1.0).all_reduce(self._ranks)
        average = batch_statistics.scaled(1 / batch_statistics.points)
        if self._running is not None:
            average = average.about(self._running.origins, self._settings.covariance_type)
        weight = 1.0 if self._running is None else (self._steps + 2) ** -_FORGETTING
        self._running = (
            average if self._running is None else self._running.scaled(1 - weight).add_(average.scaled(weight))
        )
        self._steps += 1
        self._seen += batch_statistics.points
        self._parameters = m_step(
            self._running.scaled(self._seen),
            self._settings.covariance_type,
            ridge=self._settings.reg_covar,
            prior_strength=self._settings.nu(points.x.shape[1]),
        )
        return batch_statistics.mean_log_likelihood + self._standardisation.log_density_shift

    def _standardised(self, points: Points) -> Points:
        return self._standardisation.apply(points, self._settings.working_dtype)
