"""Checkpoints are written by a thread, while training goes on.

Training waits for the copies of its tensors only, which stay on their device, and for the former checkpoint where that
is still being written. A process that dies meanwhile leaves the former checkpoint as the newest.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.errors import machine_faults
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint, fingerprint, write
from trainer.run_folder.pruning import prune


class CheckpointSaver:
    """Writes the checkpoints of a run from the main process; every process calls the methods together.

    keep_last: how many of the newest remain beside the ends of stages. may_write: raises InputError where the folder
    may not be written any more. saved_images: images of the run at the last checkpoint, which `save` moves on. The
    block ends when the last checkpoint is written.
    """

    def __init__(
        self, run: Path, ranks: Ranks, *, keep_last: int, may_write: Callable[[], None], saved_images: int = 0
    ) -> None:
        self.run, self.ranks, self.keep_last, self._may_write = run, ranks, keep_last, may_write
        self.saved_images = saved_images
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> "CheckpointSaver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()

    def save(self, checkpoint: Checkpoint) -> None:
        """Begins to write a checkpoint, whose tensors may change afterwards.

        Raises RuntimeError where the processes' weights differ, and the error of the former checkpoint's write, if that
        failed; all processes end then.
        """
        self.wait()
        if self.ranks.world_size > 1 and not self.ranks.equal(fingerprint(checkpoint.model)):
            images = checkpoint.state.images
            raise RuntimeError(f"the processes' weights differ after {images} images; no checkpoint was written")
        if self.ranks.is_main:
            self._thread = threading.Thread(
                target=self._write, args=(checkpoint.copied(), _end_of_copies()), name="checkpoint"
            )
            self._thread.start()
        self.saved_images = checkpoint.state.images

    def wait(self) -> None:
        """Waits until the last checkpoint is complete. Raises the error of its write; all processes end then."""
        self.ranks.agree(self._finish)

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self._may_write()

    def _write(self, copy: Checkpoint, copied: torch.cuda.Event | None) -> None:
        try:
            on_host = replace(copy, model=_on_host(copy.model, copied), training=_on_host(copy.training, copied))
            self._may_write()
            with machine_faults(self.run / "checkpoints"):
                newest = write(self.run, on_host)
                self._may_write()  # whoever took the folder over meanwhile may go on from one of the former checkpoints
                prune(self.run, self.keep_last, newest)
        except Exception as error:  # raised where the processes meet next
            self._failure = error


def _end_of_copies() -> torch.cuda.Event | None:
    """On a GPU, what the thread's own stream waits for; None where copies are made at once."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    copied = torch.cuda.Event()
    copied.record()
    return copied


def _on_host(tensors: dict[str, Tensor], copied: torch.cuda.Event | None) -> dict[str, Tensor]:
    if copied is None:
        return tensors
    stream = torch.cuda.Stream()  # training's own stream holds updates that come after the copies
    stream.wait_event(copied)
    with torch.cuda.stream(stream):
        return {name: value.cpu() for name, value in tensors.items()}
