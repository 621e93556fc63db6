"""From points to a fitted mixture: standardisation, start, EM, and the choice of shrinkage on held-out points."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_shards.io.errors import InputError
from trainer.engines.cpu import keep_freed_memory
from trainer.full_precision import full_precision
from trainer.mixture.checkpoints import Checkpoints
from trainer.mixture.chunks import Chunks
from trainer.mixture.content import digest_of_points, digest_of_tensors
from trainer.mixture.division import HeldOutDivision, divisions
from trainer.mixture.em.e_step import EStep, Statistics
from trainer.mixture.em.loop import FEWEST_POINTS, EMState, expectation_maximisation, mean_held_out
from trainer.mixture.em.m_step import m_step
from trainer.mixture.fitted import FitRecord, FittedMixture
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, Standardisation, place_among_ranks
from trainer.mixture.settings import Settings
from trainer.mixture.shrinkage import Choice, chosen_shrinkage
from trainer.mixture.start import Start, first_parameters
from trainer.mixture.streaming import ChunkMoments, streamed_division
from trainer.process_group import Ranks

VERSION = 4
"""Of the fit: raised where the same points and settings give another mixture."""
# How often EM goes on with the prior strength that held-out points chose.
_MOST_ROUNDS = 2
# It does not where the new one is within this factor of the last.
_LIKE = 1.5


class _Phases:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._began
        self._began = now


@full_precision()
def fit_mixture(
    train: Points | Chunks,
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
    (equation 11), EM raises a lower bound of the mean of log q_hat under the aggregate posterior. Of chunks, which are
    read once an iteration, at most 100,000 held-out points and a sample for k-means are kept. held_out: points that
    decide convergence, prior strength and inflation; None splits some off, see `Settings.validation_fraction`.
    after: called after each iteration on every process. checkpoint: a folder for checkpoints, at most one in
    checkpoint_seconds; a fit with the same settings and points continues from it. Not of chunks.
    Raises InputError where there are fewer points than components, a start of more components than wanted, or other
    settings, dimensions or another start on another process.
    """
    _refuse_different_fits(train, held_out, settings, start, ranks)
    phases = _Phases()
    if ranks.device.type == "cpu":
        keep_freed_memory()
    standardisation, inner, data = _prepared(train, held_out, settings, ranks)
    phases.end("prepare")
    keeps = checkpoint is not None and inner.products != "centred" and isinstance(train, Points)
    content = _content(train, held_out, start, ranks) if keeps and isinstance(train, Points) else {}
    best: tuple[float, FittedMixture] | None = None
    for place in range(1 if start is not None and start.is_complete else settings.n_init):
        one = replace(inner, random_state=settings.random_state + place)
        saved = None
        # Small fits take seconds, and several of them decide together.
        if checkpoint is not None and keeps:
            fingerprint = {"settings": asdict(settings), **content, "place": place, "version": VERSION}
            saved = Checkpoints(checkpoint, fingerprint, ranks, checkpoint_seconds)
        found = _Fitting(data, start, standardisation, one, ranks, saved, phases).run(after)
        if best is None or found[0] > best[0]:
            best = found
    assert best is not None
    return replace(best[1], settings=settings)


def _refuse_different_fits(
    train: Points | Chunks, held_out: Points | None, settings: Settings, start: Start | None, ranks: Ranks
) -> None:
    """Raises InputError on every process where they would not fit one mixture."""
    if ranks.world_size == 1:
        return
    dim = train.dim if isinstance(train, Chunks) else train.x.shape[1]
    facts = {
        **{name: str(value) for name, value in asdict(settings).items()},
        "dimensions": str(dim),
        "points": "in chunks"
        if isinstance(train, Chunks)
        else "as they are"
        if train.variance is None
        else "Gaussians",
        "held-out points": "none" if held_out is None else f"of {held_out.x.shape[1]} dimensions",
        "start": "k-means" if start is None else digest_of_tensors(start.tensors),
    }
    ranks.refuse_differences(facts, "fit with the same settings and start on all processes")


def _prepared(
    train: Points | Chunks, held_out: Points | None, settings: Settings, ranks: Ranks
) -> tuple[Standardisation, Settings, list[HeldOutDivision]]:
    """The standardisation, the settings of a fit to standardised points, and the divisions of these."""
    moments = None
    if isinstance(train, Chunks):
        moments = ChunkMoments.of(train, ranks)
        total, standardisation, dim = moments.count, moments.standardisation(), train.dim
    else:
        total, _ = place_among_ranks(len(train), ranks)
        standardisation, dim = Standardisation.of(train.x, ranks), train.x.shape[1]
    if total < settings.n_components:
        message = f"{settings.n_components} components for {total} points; use {total} or fewer"
        raise InputError(message, parameter="n_components")
    inner = replace(settings, reg_covar=settings.reg_covar / standardisation.scale**2).for_points(total, dim)
    if isinstance(train, Chunks) and moments is not None:
        return standardisation, inner, [streamed_division(train, moments, standardisation, held_out, inner, ranks)]
    assert isinstance(train, Points)
    return standardisation, inner, divisions(standardisation, train, held_out, inner, ranks)


def _content(train: Points, held_out: Points | None, start: Start | None, ranks: Ranks) -> dict[str, str | None]:
    """What a fit is made from beside its settings, by content."""
    return {
        "points": digest_of_points(train, ranks),
        "held_out": digest_of_points(held_out, ranks),
        "start": None if start is None else digest_of_tensors(start.tensors),
    }


@dataclass
class _Fit:
    """A fit to the points of one division."""

    division: HeldOutDivision
    e_step: EStep
    state: EMState
    statistics: Statistics | None = None


class _Fitting:
    """A fit from one start, with what all its steps need. settings: with reg_covar for standardised points."""

    def __init__(
        self,
        data: list[HeldOutDivision],
        start: Start | None,
        standardisation: Standardisation,
        settings: Settings,
        ranks: Ranks,
        saved: Checkpoints | None,
        phases: _Phases,
    ) -> None:
        self._settings, self._ranks, self._saved, self._phases = settings, ranks, saved, phases
        self._standardisation, self._start = standardisation, start
        self._remarks: list[str] = []
        self._fits = [self._begun(division, saved if place == 0 else None) for place, division in enumerate(data)]
        phases.end("k-means")

    def _begun(self, division: HeldOutDivision, saved: Checkpoints | None) -> _Fit:
        settings, start = self._settings, self._start
        e_step = division.e_step(settings)
        state = None if saved is None else saved.resume(e_step, settings.covariance_type)
        if state is None:
            checkpoint = None if saved is None else saved.kmeans
            parameters, with_points = first_parameters(
                start, self._standardisation, division.points, settings, self._ranks, checkpoint
            )
            state = EMState(parameters)
            if with_points < settings.n_components and not self._remarks:
                self._remarks.append(
                    f"n_components: only {with_points} of {settings.n_components} clusters of k-means have points; "
                    "the points lie at too few places"
                )
            if start is not None and start.record is not None:
                state.before = _in_data_units([start.record], -self._standardisation.log_density_shift)[0]
        return _Fit(division, e_step, state)

    def run(self, after: Callable[[EMState], None] | None) -> tuple[float, FittedMixture]:
        """(log-likelihood that starts are compared by, the fit)."""
        settings, main = self._settings, self._fits[0]
        chooses = main.division.held_out is not None and settings.has_choices and settings.max_iter > 0
        nu = settings.nu(main.state.parameters.dim) if main.state.nu is None else main.state.nu
        while True:
            self._iterate(after)
            if not chooses:
                break
            choice = self._choice(nu)
            is_last = main.state.round >= _MOST_ROUNDS or main.state.iteration + 2 > settings.max_iter
            if is_last or _alike(choice.prior_strength, nu):
                break
            nu = choice.prior_strength
            for fit in self._fits:
                self._continue(fit, nu)
        return self._ended(choice if chooses else None, nu)

    def _iterate(self, after: Callable[[EMState], None] | None) -> None:
        for place, fit in enumerate(self._fits):
            followed = None
            if place == 0:
                followed = _after_iteration(self._saved, fit.e_step, self._standardisation, after)
            expectation_maximisation(fit.state, fit.e_step, self._settings, self._ranks, followed)
        self._phases.end("EM")

    def _choice(self, nu: float) -> Choice:
        for fit in self._fits:
            fit.statistics = fit.e_step.exact("train", fit.state.parameters).all_reduce(self._ranks)
        self._phases.end("exact pass")
        fits = [(fit.statistics, fit.e_step) for fit in self._fits if fit.statistics is not None]
        choice = chosen_shrinkage(fits, nu, self._settings, self._fits[0].state.parameters.dim, self._ranks)
        self._phases.end("choice")
        return choice

    def _continue(self, fit: _Fit, nu: float) -> None:
        """Further iterations, with the prior strength `nu`."""
        assert fit.statistics is not None
        settings, state = self._settings, fit.state
        state.parameters = m_step(fit.statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu)
        state.nu, state.round, state.converged, fit.statistics = nu, state.round + 1, False, None

    def _ended(self, choice: Choice | None, nu: float) -> tuple[float, FittedMixture]:
        """The last M-step.

        Where nothing is chosen and the E-step of EM was exact, it is that of the iteration that converged, and a fit
        that was cut off by max_iter ends with the M-step that it had.
        """
        settings, main, ranks = self._settings, self._fits[0], self._ranks
        state, e_step, kind = main.state, main.e_step, self._settings.covariance_type
        final, inflation, loss, alive = state.parameters, settings.inflation or 1.0, None, None
        score = state.history[-1]["log_likelihood"] if state.history else -math.inf
        if settings.max_iter > 0 and (choice is not None or settings.width or state.converged):
            statistics = main.statistics
            if statistics is None:
                statistics = e_step.exact("train", state.parameters).all_reduce(ranks)
            loss = statistics.truncation_loss if settings.width else None
            if choice is not None:
                nu, inflation, score = choice.prior_strength, choice.inflation, choice.log_likelihood
            else:
                held_out = mean_held_out(state.parameters, e_step, ranks)
                score = statistics.mean_log_likelihood if held_out is None else held_out
            if main.division.returning:
                if not ranks.is_main:
                    statistics.zero_()  # what the processes have summed is to count once
                statistics = e_step.exact("held_out", state.parameters, statistics).all_reduce(ranks)
            e_step.forget()
            alive = int((statistics.counts >= FEWEST_POINTS).sum())
            final = m_step(statistics, kind, ridge=settings.reg_covar, prior_strength=nu)
            if main.division.returning and settings.products == "centred":
                # Points that joined moved the components; in a small problem one more iteration with all costs nothing.
                statistics = e_step.exact("held_out", final, e_step.exact("train", final)).all_reduce(ranks)
                alive = int((statistics.counts >= FEWEST_POINTS).sum())
                final = m_step(statistics, kind, ridge=settings.reg_covar, prior_strength=nu)
            self._phases.end("last M-step")
            main.statistics = None
            del statistics  # a third of all memory
        if settings.max_iter > 0 and inflation != 1:
            final = final.inflated(inflation)
        return score, self._result(final, choice, nu, inflation, loss, alive)

    def _result(
        self,
        final: Parameters,
        choice: Choice | None,
        nu: float,
        inflation: float,
        loss: float | None,
        alive: int | None,
    ) -> FittedMixture:
        state, settings = self._fits[0].state, self._settings
        remarks = [*self._remarks, *(() if choice is None else choice.remarks)]
        if alive is not None and alive < settings.n_components:
            remarks.append(
                f"n_components: {settings.n_components - alive} of {settings.n_components} hold less than a point"
            )
        record = FitRecord(
            converged=state.converged,
            n_iter=state.iteration,
            history=_in_data_units(state.history, self._standardisation.log_density_shift),
            prior_strength=nu,
            inflation=inflation,
            truncation_loss=loss,
            seconds=self._phases.seconds,
            alive=alive,
            remarks=remarks,
        )
        return FittedMixture(parameters=self._standardisation.invert(final), settings=settings, record=record)


def _alike(strength: float, other: float) -> bool:
    """Whether EM with either prior strength would end alike."""
    return strength == other or (other > 0 and 1 / _LIKE < strength / other < _LIKE)


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


def _in_data_units(history: list[dict[str, float]], shift: float) -> list[dict[str, float]]:
    """Records of nats per standardised point, as nats per point of the data."""
    shifted = ("log_likelihood", "held_out")
    return [{name: value + shift * (name in shifted) for name, value in record.items()} for record in history]
