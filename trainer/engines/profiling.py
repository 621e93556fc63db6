"""A trace of a few updates, for chrome://tracing or Perfetto."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

_WARM_UP_STEPS = 10


def profiler(path: Path, steps: int) -> AbstractContextManager[Any]:
    """A block in which `steps` updates after ten of warm-up are traced into the file `path`; nothing where steps is 0.

    The block yields a profiler whose step() marks the end of an update, or None.
    """
    if steps == 0:
        return nullcontext()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    return profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=_WARM_UP_STEPS, active=steps, repeat=1),
        on_trace_ready=lambda traced: traced.export_chrome_trace(str(path)),
    )
