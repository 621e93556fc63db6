"""Requests to stop: a signal, a file named STOP in the run folder, or the end of the time that the run was given."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType

# Looking for a file on a shared disk costs more than a step of a small model.
_SECONDS_BETWEEN_LOOKS = 1.0


class StopRequest:
    """Notices that this process was asked to stop. Whether all stop is for the ranks to agree on."""

    def __init__(self, run: Path, walltime_minutes: float) -> None:
        self.stop_file = run / "STOP"
        self.deadline = time.monotonic() + 60 * walltime_minutes if walltime_minutes > 0 else None
        self._next_look = 0.0
        self._reason = ""
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        # Python lets the main thread alone take signals; who runs a training in another one stops it by the file.
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
        """Why this process wants to stop: "SIGTERM", "SIGUSR2", "STOP" or "walltime"; empty where it does not."""
        now = time.monotonic()
        if not self._reason and self.deadline is not None and now >= self.deadline:
            self._reason = "walltime"
        if not self._reason and now >= self._next_look:
            self._next_look = now + _SECONDS_BETWEEN_LOOKS
            self._reason = "STOP" if self.stop_file.exists() else ""
        return self._reason
