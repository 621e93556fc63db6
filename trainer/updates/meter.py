"""What is measured of updates.

Sums of the results of updates stay on the device and are read at intervals, so that no update waits for the host.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from data_shards.stream.stream import Batch
from trainer.engines.engine import StepResult
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
        schedule=schedule(wait=0, warmup=WARM_UP_STEPS, active=steps, repeat=1),
        on_trace_ready=lambda traced: traced.export_chrome_trace(str(path)),
    ) as trace:
        yield trace.step
