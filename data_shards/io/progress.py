"""Progress of long work: a bar on a terminal, a line every ten seconds in a log file."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """`seconds` as a person reads it: 42s, 3m05s, 1h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Shows title, part done, rate, time left, and named facts.

    title: what is being done; total: how many units it takes, or None where that is unknown; unit: the name of a unit;
    show: False prints nothing, for every process except the first.
    """

    def __init__(self, title: str, total: int | None, unit: str = "images", *, show: bool = True) -> None:
        self.title, self.total, self.unit, self.show = title, total, unit, show
        self._first_done: int | None = None
        self._began = self._printed = time.monotonic()
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._line = ""

    def __enter__(self) -> "Progress":
        if self.show and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
            self._bar = Bar(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.show and self._line and kind is None:  # an error has a line of its own
            print(self._line, file=sys.stderr, flush=True)

    def update(self, done: int, **facts: object) -> None:
        """Reports that `done` units are finished. Work before the first call (a resume) does not count in the rate."""
        if not self.show:
            return
        now = time.monotonic()
        if self._first_done is None:
            self._first_done, self._began = done, now
        rate = (done - self._first_done) / max(now - self._began, 1e-9)
        text = self._text(done, rate, facts)
        if self._bar is not None:
            self._bar.update(self._task, description=self.title, completed=done, text=text)
            return
        self._line = f"{self.title}  {text}"
        if now - self._printed >= _SECONDS_BETWEEN_LINES:
            print(self._line, file=sys.stderr, flush=True)
            self._printed, self._line = now, ""

    def _text(self, done: int, rate: float, facts: dict[str, object]) -> str:
        parts = [f"{done:,} {self.unit}" if self.total is None else f"{done:,} of {self.total:,} {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2f} {self.unit}/s")
        parts += [f"{name} {value}" for name, value in facts.items()]
        if rate > 0 and self.total is not None:
            parts.append(f"{duration((self.total - done) / rate)} left")
        return "  ".join(parts)
