"""Requests to stop: a signal, a file named STOP in the run folder, or the end of the run's time limit.

After a stop the file `requeue` in the run folder holds "yes REASON" where the run should be started again, as a batch
system does, and "no STOP" where a person stopped it.
"""

import signal
import threading
import time
from pathlib import Path
from types import FrameType

from data_shards.io.atomic import write_text

# Looking for a file on a shared disk costs more than an update of a small model.
_SECONDS_BETWEEN_LOOKS = 1.0


class StopRequest:
    """Records that this process was asked to stop. The ranks decide together whether all stop.

    run: the run folder. walltime_minutes: the time limit from now; 0 sets none. main: whether this process removes and
    writes `requeue`.
    """

    def __init__(self, run: Path, walltime_minutes: float, *, main: bool) -> None:
        self.run, self.main = run, main
        self.deadline = time.monotonic() + 60 * walltime_minutes if walltime_minutes > 0 else None
        self._next_look = 0.0
        self._reason = ""
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if self.main:
            (self.run / "requeue").unlink(missing_ok=True)
        # Python allows signal handlers in the main thread only; a training in another thread is stopped by the file.
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGTERM, signal.SIGUSR2):
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._reason = signal.Signals(number).name

    def reason(self) -> str:
        """Why this process should stop: "SIGTERM", "SIGUSR2", "STOP" or "walltime"; empty where it should not."""
        now = time.monotonic()
        if not self._reason and self.deadline is not None and now >= self.deadline:
            self._reason = "walltime"
        if not self._reason and now >= self._next_look:
            self._next_look = now + _SECONDS_BETWEEN_LOOKS
            self._reason = "STOP" if (self.run / "STOP").exists() else ""
        return self._reason

    def write_requeue(self, reason: str) -> None:
        """Writes `requeue` after a stop."""
        if self.main:
            write_text(self.run / "requeue", f"{'no' if reason == 'STOP' else 'yes'} {reason}\n")
