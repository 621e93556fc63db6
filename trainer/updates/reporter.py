"""What is measured of updates, what a run writes to its log, its warnings, and how many failures end it.

Sums of the results of updates stay on the device and are read at intervals, so that no update waits for the host.
"""

import contextlib
import math
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from data_shards.io.errors import InputError
from data_shards.stream.stream import Batch
from trainer.config.config import Config, flattened
from trainer.config.methods import METHODS
from trainer.engines.engine import StepResult
from trainer.objectives.gaussian import variance_floor_cap
from trainer.peers.code_version import versions
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import RunState, complete_checkpoints
from trainer.run_folder.log import Listener, RunLog
from trainer.run_folder.restore import OpenedRun
from trainer.run_folder.trackers.tracker import TrackedRun, open_tracker
from trainer.updates import advice
from trainer.updates.evaluation import HeldOut, compared
from trainer.updates.learner import Learner
from trainer.updates.stages import Stages

_WARM_UP_STEPS = 10
_SECONDS_BETWEEN_MOVES, _SECONDS_BETWEEN_ESTIMATES = 0.1, 5.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The updates since the last reading, over all processes unless said otherwise."""

    images: int
    good_steps: int
    bad_in_a_row: int
    """Updates skipped at the end of the interval."""
    bad_batches: list[tuple[int, int]]
    """(position of the first image, images) of each global batch that was skipped."""
    seconds: float
    seconds_waiting: float
    """Time that this process waited for data."""
    sums: list[float]
    """Loss, log-likelihood, KL and square error, summed over the images of good updates."""
    substituted: int
    """Unreadable images that others replaced."""
    pixels: int
    sigma2: float
    gradient_norm: float
    """Mean over good updates, before clipping; NaN where the engine does not know it."""
    largest_gradient_norm: float
    learning_rate: float
    """Of the last update."""

    def facts(self) -> dict[str, Any]:
        """The line of metrics.jsonl; means are in nats per image over the updates that were not skipped."""
        images = max(self.images, 1)
        loss, log_likelihood, kl, square_error = (value / images for value in self.sums)
        closed_form = square_error / self.pixels
        cap = variance_floor_cap(self.pixels, closed_form) if closed_form > 0 else float("inf")
        return {
            "elbo": log_likelihood - kl,
            "loss": loss,
            "log_likelihood": log_likelihood,
            "kl": kl,
            "elbo_at_closed_form": cap - 0.5 * self.pixels - kl,
            "sigma2": self.sigma2,
            "closed_form_sigma2": closed_form,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "largest_gradient_norm": self.largest_gradient_norm,
            "images_per_second": self.images / max(self.seconds, 1e-9),
            "seconds": self.seconds,
            "data_wait_share": self.seconds_waiting / max(self.seconds, 1e-9),
            "step_milliseconds": 1000 * self.seconds / max(self.good_steps + len(self.bad_batches), 1),
            "peak_memory_mib": peak_memory_mib(),
        }


def peak_memory_mib() -> float:
    """The peak memory of this process: of the GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Meter:
    """Sums the results of updates between two readings."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._begin()
        self._last_stop: torch.Tensor | None = None

    def _begin(self) -> None:
        self._sums = torch.zeros(6, dtype=torch.float64, device=self.device)
        self._norms = torch.zeros(2, dtype=torch.float64, device=self.device)  # sum and largest
        self._finite: list[torch.Tensor] = []
        self._batches: list[tuple[int, int]] = []
        self._start, self._waited = time.monotonic(), 0.0

    def waiting(self, stream: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of `stream`; measures the time spent waiting for each."""
        iterator = iter(stream)
        while True:
            start = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, batch: Batch, result: StepResult) -> None:
        """Adds the result of an update."""
        self._sums[:4] += torch.where(result.finite, result.sums[:4], 0.0)
        self._sums[4:] += result.sums[4:]
        norm = torch.where(result.finite, result.gradient_norm, 0.0)
        self._norms[0] += norm
        self._norms[1].clamp_min_(norm)
        self._finite.append(result.finite)
        self._batches.append((batch.start, batch.count))

    def stop_requested(self, result: StepResult) -> bool:
        """True, on every rank at the same update, once any rank sent the signal to stop.

        On a GPU this reads the signal of the previous update, so that the host stays one update ahead.
        """
        if self.device.type != "cuda":
            return bool(result.sums[4] > 0)
        seen, self._last_stop = self._last_stop, result.sums[4]
        return seen is not None and bool(seen > 0)

    def must_read(self) -> bool:
        """True where the last update was skipped, on a CPU; on a GPU the check would wait for the device."""
        return self.device.type != "cuda" and not bool(self._finite[-1])

    def read(self, learner: Learner) -> Reading:
        """The updates since the last reading; starts a new interval."""
        reading = self.look(learner)
        self._begin()
        return reading

    def look(self, learner: Learner) -> Reading:
        """The updates since the last reading."""
        flags = torch.stack(self._finite).tolist() if self._finite else []
        counts = [count for (_, count), good in zip(self._batches, flags, strict=True) if good]
        trailing = next((n for n, good in enumerate(reversed(flags)) if good), len(flags))
        norm_sum, largest_norm = self._norms.tolist()
        return Reading(
            images=sum(counts),
            good_steps=len(counts),
            bad_in_a_row=trailing,
            bad_batches=[where for where, good in zip(self._batches, flags, strict=True) if not good],
            seconds=time.monotonic() - self._start,
            seconds_waiting=self._waited,
            sums=self._sums[:4].tolist(),
            substituted=round(self._sums[5].item()),
            pixels=learner.model.pixels,
            sigma2=learner.model.dataset_variance,
            gradient_norm=norm_sum / max(len(counts), 1),
            largest_gradient_norm=largest_norm,
            learning_rate=learner.learning_rate,
        )


# The trace can be opened in chrome://tracing or Perfetto.
@contextlib.contextmanager
def profiler(path: Path, steps: int) -> Iterator[Callable[[], None]]:
    """A block in which `steps` updates, after ten of warm-up, are traced into the file `path`; no trace for 0 steps.

    Yields a function to call after each update.
    """
    if steps == 0:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=_WARM_UP_STEPS, active=steps, repeat=1),
        on_trace_ready=lambda traced: traced.export_chrome_trace(str(path)),
    ) as trace:
        yield trace.step


class Reporter:
    """Writes the events of a run, each at the current place in `stages`.

    opened: what the run starts from. listener: called with each event, on every process.
    """

    def __init__(
        self, config: Config, ranks: Ranks, stages: Stages, opened: OpenedRun, listener: Listener | None = None
    ) -> None:
        self.config, self.stages, self.pixels = config, stages, math.prod(opened.manifest.image_shape)
        self.bad_steps = opened.state.bad_steps if opened.state else 0
        self.substituted = opened.state.substituted if opened.state else 0
        self.log = RunLog(
            config.folder,
            images=stages.images,
            total=stages.last_image,
            main=ranks.is_main,
            listener=listener,
            again=_written_again(opened.state),
        )
        # Held-out and training ELBO of the last measurements, in nats per image.
        self._last: HeldOut | None = None
        self._train_elbo: float | None = None
        self._warned_in_stage = 0
        if ranks.is_main:
            tracked = TrackedRun(
                folder=config.folder, name=config.name, settings=flattened(config), images=stages.images
            )
            self.log.trackers = [open_tracker(name, tracked) for name in config.log.to]
        # What the bar shows, and when it changes next.
        self._estimates: dict[str, str] = {}
        self._updates, self._next_look, self._next_estimate = 0, 0.0, 0.0
        self._show_progress()
        if opened.changes:
            self._event("configuration", stage=stages.state.stage, changes=list(opened.changes))
        for message in opened.damaged:
            self._event("checkpoint_damaged", message=message)
            self._say(message)
        self._event(
            "resume" if opened.state else "start",
            stage=stages.state.stage,
            world_size=ranks.world_size,
            host=socket.gethostname(),
            **versions(),
            configuration=flattened(config),
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def _event(self, kind: str, **facts: Any) -> None:
        self.log.event(kind, self.stages.images, epoch=self.stages.images / self.stages.train_images, **facts)

    def _say(self, message: str) -> None:
        """A line on the terminal, above the bar, from one process."""
        if self.log.main:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """A warning, in the log and on the terminal."""
        self._event("warning", message=message)
        self._say(message)

    def updates(self, reading: Reading) -> None:
        """The updates of an interval. Raises InputError where more of them failed than the configuration allows."""
        stage = self.stages.state.stage
        self.bad_steps = reading.bad_in_a_row + (self.bad_steps if reading.good_steps == 0 else 0)
        for start, count in reading.bad_batches:
            self._event("bad_step", stage=stage, batch_start=start, batch_images=count)
            self._say(f"the update on images {start:,} to {start + count - 1:,} was skipped: not finite")
        if reading.substituted:
            self.substituted += reading.substituted
            self._event("substituted", stage=stage, now=reading.substituted, total=self.substituted)
            self._say(f"{reading.substituted} images could not be read and were replaced, {self.substituted} so far")
        facts = reading.facts()
        if reading.good_steps:
            has_kl = METHODS[self.config.objective.name].has_kl
            self._train_elbo = facts["elbo" if has_kl else "log_likelihood"]
        self._event("train", stage=stage, **facts)
        self._estimate(reading)
        self._show_progress()
        self._limit_failures()

    def update_done(self, meter: Meter, learner: Learner) -> None:
        """Moves the bar. Its estimates begin after ten updates and are new every few seconds: they wait for a GPU."""
        if not self.log.main:
            return
        self._updates += 1
        now = time.monotonic()
        if self._updates == _WARM_UP_STEPS or (self._updates > _WARM_UP_STEPS and now >= self._next_estimate):
            self._estimate(meter.look(learner))
        elif now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_MOVES
        self._show_progress()

    def _estimate(self, reading: Reading) -> None:
        self._next_estimate = time.monotonic() + _SECONDS_BETWEEN_ESTIMATES
        if reading.good_steps:
            facts = reading.facts()
            self._estimates = {"ELBO": f"{facts['elbo']:.1f}", "sigma2": f"{facts['sigma2']:.5f}"}

    def _show_progress(self) -> None:
        stages = self.stages
        self.log.progress(stages.images, stages.last_image, stages.state.stage, **self._estimates)

    def _limit_failures(self) -> None:
        data, images = self.config.data, self.stages.images
        if self.substituted > data.substitutes:
            raise InputError(
                f"{self.substituted} images could not be read where {data.substitutes} are allowed; run "
                f"`python -m data_shards verify {data.shards}`",
                parameter="data.substitutes",
            )
        if self.bad_steps >= self.config.checkpoint.bad_steps:
            self._stopped(
                f"loss or gradient was not finite in {self.bad_steps} updates in a row (the last at image {images})"
            )

    def not_finite(self, name: str) -> NoReturn:
        """Ends the run because of a number that is not finite. name: which one. Raises InputError."""
        self._stopped(f"{name} is not finite at image {self.stages.images}, so no checkpoint was written there")

    def pictures(self, pictures: dict[str, torch.Tensor]) -> None:
        """Pictures of a check, uint8 of shape (C, H, W), for the programs of log.to."""
        self.log.pictures(pictures, self.stages.images)

    def _stopped(self, what: str) -> NoReturn:
        self._event("stopped", stage=self.stages.state.stage, reason="not finite", in_a_row=self.bad_steps)
        sound = complete_checkpoints(self.config.folder)
        where = f"the last sound checkpoint is {sound[-1]}" if sound else "there is no earlier checkpoint"
        raise InputError(f"{what}; {where}; {advice.SLOWER}", parameter="optimiser.learning_rate")

    def look(self, measured: HeldOut) -> None:
        """A measurement of held-out images, with a warning once a stage where their ELBO has fallen far."""
        state, self._last = self.stages.state, compared(measured, self.config.objective.name)
        self._event("valid", stage=state.stage, smoothed_elbo=state.smoothed, **vars(measured))
        if state.best_elbo is None or state.best_images is None or self._warned_in_stage == state.stage or state.ended:
            return
        message = advice.fallen(
            best=state.best_elbo,
            best_images=state.best_images,
            now=self._last.elbo,
            train=self._train_elbo,
            images=self.stages.images,
            pixels=self.pixels,
        )
        if message is not None:
            self._warned_in_stage = state.stage
            self.warn(message)

    def stage_end(self, measured: HeldOut, sigma2: float, *, restored: bool) -> None:
        """The end of a stage with its reason, and what may be wrong with it.

        measured: of the weights that it ends with; restored: whether these are the best, and not the last. Raises
        InputError where they are worth nothing.
        """
        state = self.stages.state
        self._event(
            "stage_end",
            stage=state.stage,
            reason=state.ended,
            stage_images=state.images,
            sigma2=sigma2,
            weights_of_images=state.best_images if restored else self.stages.images,
            **vars(measured),
        )
        kept = compared(measured, self.config.objective.name)
        last = self._last or kept
        end = advice.StageEnd(
            stage=state.stage,
            reason=state.ended,
            rising=state.without_gain == 0 and self.stages.config.eps > 0,
            last=last,
            kept=kept,
            best_elbo=last.elbo if state.best_elbo is None else state.best_elbo,
            best_images=self.stages.images if state.best_images is None else state.best_images,
            images=self.stages.images,
            restored=restored,
            train_elbo=self._train_elbo,
            train_images=self.stages.train_images,
            pixels=self.pixels,
        )
        if advice.is_lost(kept, self.pixels):
            self._event("stopped", stage=state.stage, reason="diverged")
            raise InputError(advice.lost(end, self.config.optimiser.learning_rate), parameter="optimiser.learning_rate")
        for message in advice.at_stage_end(end):
            self.warn(message)

    def stage2_start(self, measured: HeldOut, floor: float) -> None:
        """The start of stage 2, with the floor of the per-pixel variance."""
        self._event("stage_start", stage=2, floor=floor, **vars(measured))

    def stop(self, reason: str) -> None:
        """A requested stop before the end."""
        self._event("stop", stage=self.stages.state.stage, reason=reason)


def _written_again(state: RunState | None) -> tuple[str, ...]:
    """The kinds of events that a run writes at the place of the checkpoint from which it goes on."""
    if state is None:
        return ()
    if state.stages.check_due or state.stages.look_due:
        return ("valid", "stage_end", "warning")
    return ("stage_start",) if state.stages.ended else ()


def completed(config: Config, stages: Stages) -> str:
    """The last line of a run that has ended: what it reached, where everything is, and what comes next."""
    state, folder = stages.state, config.folder
    elbo = "" if state.best_elbo is None else f", held-out ELBO {state.best_elbo:,.1f} nats per image"
    return (
        f"{folder} is complete: {stages.images:,} images, {state.ended}{elbo}; the weights are in "
        f"{complete_checkpoints(folder)[-1]}, the log in {folder / 'metrics.jsonl'}; "
        f"next: python -m eval report --run {folder}"
    )
