"""The log of a run: metrics.jsonl, TensorBoard, and a progress bar on the terminal."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_text
from data_shards.io.progress import Progress

# A line of metrics.jsonl: "event", its kind; "images", seen by the run; "stage" where it is in one; and by kind the
# numbers of an interval of updates (train), of held-out images (valid, stage_start, stage_end), or a message.
Event = dict[str, Any]
# Takes the kind of an event, the images seen and its facts; called on every process, in the same order.
Listener = Callable[[str, int, dict[str, Any]], None]


def read_events(run: Path) -> list[Event]:
    """The lines of metrics.jsonl, oldest first; an incomplete last line, as a crash leaves it, is skipped."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class RunLog:
    """Writes events to metrics.jsonl and TensorBoard on the main process, and calls the listener on every process.

    images: images seen at the start of this process. Lines about later images are dropped, as the run sees those images
    again. total: images at which the run ends at the latest.
    """

    def __init__(
        self, run: Path, *, images: int, total: int, tensorboard: bool, main: bool, listener: Listener | None = None
    ) -> None:
        self.listener = listener
        self.main, self.path = main, run / "metrics.jsonl"
        self._board: Any = None
        self._bar = Progress("stage 1", total, show=main)
        self._bar.__enter__()
        if not main:
            return
        kept = [event for event in read_events(run) if event["images"] <= images]
        write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))
        if tensorboard:
            self._board = _board(run / "tensorboard", images)

    def event(self, kind: str, images: int, **facts: Any) -> None:
        """Appends a line to metrics.jsonl, and its floats to TensorBoard. What is not finite is written as null."""
        if self.main:
            self._write(kind, images, {name: _finite(value) for name, value in facts.items()})
        if self.listener is not None:
            self.listener(kind, images, facts)

    def _write(self, kind: str, images: int, facts: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"event": kind, "images": images, **facts}) + "\n")
            file.flush()
            if kind != "train":
                os.fsync(file.fileno())
        if self._board is not None:
            for name, value in facts.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, images)

    def progress(self, images: int, total: int, stage: int, **facts: object) -> None:
        """Moves the bar. total: images at which the run ends at the latest."""
        self._bar.title, self._bar.total = f"stage {stage}", total
        self._bar.update(images, **facts)

    def close(self) -> None:
        """Ends the bar and flushes TensorBoard."""
        self._bar.__exit__(None, None, None)
        if self._board is not None:
            self._board.close()


def _board(folder: Path, images: int) -> Any:
    # Imported only where it is used: it takes seconds.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=images + 1 if images else None)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
