"""The log of a run: metrics.jsonl, the programs of `log.to`, and a progress bar on the terminal."""

import datetime
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError, machine_faults
from data_shards.io.progress import Progress
from data_shards.io.regular_files import kind_if_no_file
from trainer.run_folder.trackers.tracker import TrackedRun, Tracker, open_tracker

# A line of metrics.jsonl: "event", its kind; "images", seen by the run; "stage" where it is in one; and by kind the
# numbers of an interval of updates (train), of held-out images (valid, stage_start, stage_end), or a message.
Event = dict[str, Any]
# What those who read the log rely on; an event without it is not one of ours. A number that is not finite is null.
_WHOLE, _NUMBER, _TEXT = (int,), (int, float, type(None)), (str,)
_FACTS: dict[str, dict[str, tuple[type, ...]]] = {
    "train": {
        "stage": _WHOLE,
        "elbo": _NUMBER,
        "images_per_second": _NUMBER,
        "seconds": _NUMBER,
        "peak_memory_mib": _NUMBER,
    },
    "valid": {"stage": _WHOLE, "elbo": _NUMBER, "elbo_at_closed_form": _NUMBER},
    "stage_start": {"stage": _WHOLE, "elbo": _NUMBER},
    "stage_end": {"stage": _WHOLE, "elbo": _NUMBER, "sigma2": _NUMBER, "reason": _TEXT},
    "warning": {"message": _TEXT},
}
LOG = "metrics.jsonl"
_OTHERS = "metrics.unreadable"
# Takes the kind of an event, the images seen and its facts; called on every process, in the same order.
Listener = Callable[[str, int, dict[str, Any]], None]


def read_events(run: Path) -> list[Event]:
    """The lines of metrics.jsonl that can be read, oldest first."""
    return read_log(run)[0]


def read_log(run: Path) -> tuple[list[Event], list[tuple[int, bytes]]]:
    """The events of metrics.jsonl, and each line that is none with its number: torn, damaged, or of someone else.

    There is none where the log cannot be read, which is said on stderr.
    """
    path, events, others = run / LOG, list[Event](), list[tuple[int, bytes]]()
    fault = _why_unreadable(path)
    if fault:
        _say_once(f"{path}: {fault}, so nothing is known of what it may hold")
    for number, line in enumerate(path.read_bytes().split(b"\n") if not fault and path.exists() else [], start=1):
        event = _event(line)
        if event is not None:
            events.append(event)
        elif line.strip():
            others.append((number, line))
    return events, others


def _why_unreadable(path: Path) -> str:
    """Why a log cannot be read; empty where it can, or there is none. Opens nothing that might be waited for.

    Raises OSError for a fault of the machine, which says nothing of the log.
    """
    if path.is_symlink() and not path.exists():
        return "is a link to nothing"
    if kind := kind_if_no_file(path):
        return f"is {kind}"
    try:
        if path.exists():
            path.open("rb").close()
    except PermissionError as error:
        return f"cannot be read ({error.strerror})"
    return ""


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or type(event.get("images")) is not int:
        return None
    facts = _FACTS.get(event["event"], {})
    return event if all(name in event and type(event[name]) in kinds for name, kinds in facts.items()) else None


class RunLog:
    """Writes events to metrics.jsonl and the trackers on the main process, and calls the listener on every process.

    images: images seen at the start of this process. Lines about later images are dropped, as the run sees those images
    again. What is no event goes to metrics.unreadable, and what is no log is renamed. total: images at which the run
    ends at the latest. again: kinds of events that this process writes again at `images`.
    """

    def __init__(
        self,
        run: Path,
        *,
        images: int,
        total: int,
        main: bool,
        listener: Listener | None = None,
        again: Sequence[str] = (),
    ) -> None:
        self.listener = listener
        self.main, self.path = main, run / LOG
        self.trackers: list[Tracker] = []
        self._begin, self._tracked = images, set[str]()
        self._bar = Progress("stage 1", total, show=main)
        self._bar.__enter__()
        if not main:
            return
        if fault := _why_unreadable(self.path):
            aside = free_name(self.path.with_name("metrics.set-aside"))
            try:
                self.path.rename(aside)
            except OSError as error:  # such as a file on which another file system is mounted
                raise InputError(f"{self.path}: {fault}, and cannot be renamed ({error.strerror})") from error
            _say_once(f"{self.path}: {fault}; it is now {aside}, and the log begins here")
        events, others = read_log(run)
        kept = [e for e in events if e["images"] < images or (e["images"] == images and e["event"] not in again)]
        self._tracked = {e["event"] for e in events if e["images"] == images and e["event"] in again}
        if others:
            self._set_aside(others)
        write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))
        # Stays open: a process that takes the run over replaces the file, and this one then writes into the former.
        self._file = self.path.open("a")

    def event(self, kind: str, images: int, **facts: Any) -> None:
        """Appends a line to metrics.jsonl, and its numbers to the trackers. What is not finite is written as null."""
        if self.main:
            self._write(kind, images, {name: _finite(value) for name, value in facts.items()})
        if self.listener is not None:
            self.listener(kind, images, facts)

    def _set_aside(self, others: list[tuple[int, bytes]]) -> None:
        side = self.path.with_name(_OTHERS)
        side = side if side.is_file() else free_name(side)
        with machine_faults(side), side.open("ab") as file:
            file.write(b"".join(line + b"\n" for _, line in others))
            file.flush()
            os.fsync(file.fileno())
        print(
            f"{self.path}: {len(others)} lines are no events of this trainer (the first is line {others[0][0]}); "
            f"they are now in {side}",
            file=sys.stderr,
            flush=True,
        )

    def _write(self, kind: str, images: int, facts: dict[str, Any]) -> None:
        stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with machine_faults(self.path):
            self._file.write(json.dumps({"event": kind, "images": images, "time": stamp, **facts}) + "\n")
            self._file.flush()
            if kind != "train":
                os.fsync(self._file.fileno())
        numbers = {
            f"{kind}/{name}": float(value)
            for name, value in facts.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        # What is written again here is the same, and the trackers have it.
        if images == self._begin and kind in self._tracked:
            self._tracked.remove(kind)
        else:
            self._track(lambda tracker: tracker.numbers(numbers, images))

    def pictures(self, pictures: Mapping[str, Tensor], images: int) -> None:
        """Gives pictures by name, uint8 of shape (C, H, W), to the trackers."""
        self._track(lambda tracker: tracker.pictures(pictures, images))

    def open_trackers(self, names: Sequence[str], run: TrackedRun) -> None:
        """Opens the trackers of these names; the run goes on without one that cannot be opened."""
        for name in names:
            try:
                self.trackers.append(open_tracker(name, run))
            except Exception as error:
                _left_out(name, error)

    def _track(self, action: Callable[[Tracker], None]) -> None:
        """Does `action` with each tracker; the run goes on without one that fails, such as one whose server is gone."""
        for tracker in list(self.trackers):
            try:
                action(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                _left_out(type(tracker).__name__, error)

    def progress(self, images: int, total: int, stage: int, **facts: object) -> None:
        """Moves the bar. total: images at which the run ends at the latest."""
        self._bar.title, self._bar.total = f"stage {stage}", total
        self._bar.update(images, **facts)

    def close(self) -> None:
        """Ends the bar and the trackers."""
        self._bar.__exit__(None, None, None)
        if self.main:
            with machine_faults(self.path):
                self._file.close()
        self._track(lambda tracker: tracker.close())


def free_name(path: Path) -> Path:
    """`path`, or the first of its numbered names at which there is nothing."""
    found, number = path, 1
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _left_out(tracker: str, error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    print(f"log.to: {tracker} failed ({reason}); the run goes on without it", file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
