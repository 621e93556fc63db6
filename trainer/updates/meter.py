"""What is measured of updates.

No update waits for the host: on a GPU the host reads the result of an update when it has asked for the next one.
"""

import contextlib
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, schedule

from data_shards.stream.stream import Batch
from trainer.objectives.gaussian import variance_floor_cap
from trainer.updates.learner import Learner

WARM_UP_STEPS = 10


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


@dataclass(frozen=True, kw_only=True)
class _Update:
    """One update whose result may still be on its way to the host."""

    start: int
    count: int
    values: Tensor
    """(9,) float64 on the host, as `Learner.update` returns them."""
    arrived: torch.cuda.Event | None
    """After it `values` are there; None where they are."""


class Meter:
    """Sums the results of updates between two readings.

    On a GPU each result is copied to pinned memory, and looked at when the next update has been asked for. So the host
    stays an update ahead of the GPU; every process knows of an update at the same place, one update late.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._late = 1 if device.type == "cuda" else 0
        self._on_their_way: deque[_Update] = deque()
        self._stop = self._telling = False
        self._sigma2 = math.nan  # not known before the first update
        self._begin()

    def _begin(self) -> None:
        self._sums = [0.0] * 6
        self._norm_sum = self._largest_norm = 0.0
        self._seen: list[tuple[int, int, bool]] = []  # start, count, finite
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

    def add(self, batch: Batch, values: Tensor) -> None:
        """Adds an update, of which `values` is what `Learner.update` returned."""
        arrived = None
        if self.device.type == "cuda":
            on_host = torch.empty(9, dtype=torch.float64, pin_memory=True)
            values, arrived = on_host.copy_(values, non_blocking=True), torch.cuda.Event()
            arrived.record()
        self._on_their_way.append(_Update(start=batch.start, count=batch.count, values=values, arrived=arrived))
        self._take(self._late)
        self._telling = any(not finite for _, _, finite in self._seen) or self._sums[5] > 0

    def _take(self, left: int) -> None:
        """Takes the results of all but the last `left` updates into the sums."""
        while len(self._on_their_way) > left:
            update = self._on_their_way.popleft()
            if update.arrived is not None:
                update.arrived.synchronize()
            *sums, finite, norm, log_variance = update.values.tolist()
            self._sigma2 = math.exp(log_variance)
            self._seen.append((update.start, update.count, bool(finite)))
            self._stop |= sums[4] > 0
            kept = [*(sums[:4] if finite else [0.0] * 4), *sums[4:]]
            self._sums = [total + value for total, value in zip(self._sums, kept, strict=True)]
            if finite:
                self._norm_sum += norm
                self._largest_norm = norm if math.isnan(norm) else max(self._largest_norm, norm)

    def stop_requested(self) -> bool:
        """True, on every rank at the same update, once any rank sent the signal to stop."""
        return self._stop

    def must_read(self) -> bool:
        """True, on every rank at the same update, where one since the last reading was skipped or had images replaced.

        A stop or a checkpoint before the next line of the log would else lose count of them.
        """
        return self._telling

    def read(self, learner: Learner) -> Reading:
        """The updates since the last reading; starts a new interval. On a GPU this waits for the last of them."""
        self._take(0)
        reading = self.look(learner)
        self._begin()
        return reading

    def look(self, learner: Learner) -> Reading:
        """The updates since the last reading whose results are known."""
        counts = [count for _, count, finite in self._seen if finite]
        trailing = next((n for n, (*_, finite) in enumerate(reversed(self._seen)) if finite), len(self._seen))
        return Reading(
            images=sum(counts),
            good_steps=len(counts),
            bad_in_a_row=trailing,
            bad_batches=[(start, count) for start, count, finite in self._seen if not finite],
            seconds=time.monotonic() - self._start,
            seconds_waiting=self._waited,
            sums=self._sums[:4],
            substituted=round(self._sums[5]),
            pixels=learner.model.pixels,
            sigma2=self._sigma2,
            gradient_norm=self._norm_sum / max(len(counts), 1),
            largest_gradient_norm=self._largest_norm,
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
        schedule=schedule(wait=0, warmup=WARM_UP_STEPS, active=steps, repeat=1),
        on_trace_ready=lambda traced: traced.export_chrome_trace(str(path)),
    ) as trace:
        yield trace.step
