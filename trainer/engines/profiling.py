"""A trace of a few updates, for chrome://tracing or Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

_WARM_UP_STEPS = 10


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
