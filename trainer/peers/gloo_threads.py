"""gloo's own threads, which outlive a process group that something still refers to."""

import time
from pathlib import Path


def wait_for_idle_gloo(poll_seconds: float = 0.01, timeout_seconds: float = 5.0) -> None:
    """Returns once all threads of gloo are asleep, or after the timeout.

    The threads of a group outlive it where something keeps a reference, as DeepSpeed does. A thread that releases the
    last collective's tensor while the interpreter shuts down aborts the process (pytorch issue 190489). A sleeping
    thread has released it, as each sleep here lets other threads run.
    """
    tasks, idle = Path("/proc/self/task"), 0
    deadline = time.monotonic() + timeout_seconds
    while tasks.exists() and idle < 2 and time.monotonic() < deadline:
        time.sleep(poll_seconds)
        idle = 0 if any(_is_busy_gloo(task) for task in tasks.iterdir()) else idle + 1


def _is_busy_gloo(task: Path) -> bool:
    """Whether a thread of this process belongs to gloo and is not asleep. task: its folder in /proc."""
    try:
        # "ID (NAME) STATE ..."; the system cuts names after 15 characters.
        before, _, after = (task / "stat").read_text().rpartition(")")
    except OSError:
        return False  # it has ended
    return before.endswith("(pt_gloo_runloop") and after.split()[0] != "S"
