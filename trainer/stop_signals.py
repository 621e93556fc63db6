"""The signals that ask a training to stop."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from data_shards.io.errors import InputError
from trainer.peers.launcher import PlaceInJob, place_in_job

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
# Ignored from the start where `nohup` or a shell's background job asks for it. The batch scripts have the other two
# ignored while Python starts.
_MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A block in which `handler` gets the signals; in the main thread only."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if not (number in _MAY_BE_IGNORED and former[number] == signal.SIG_IGN):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


def one_line_for_signals() -> None:
    """From here on a signal ends the process with one line, unless a training handles it; for a command's start."""
    for number in SIGNALS:
        if not (number in _MAY_BE_IGNORED and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, _end_at_once)


def ignore_signals() -> None:
    """From here on signals do nothing; for the end of a command, when all is done and Python ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if place().rank == 0:
        print(f"stopped by {signal.Signals(number).name} before training began: nothing was lost", flush=True)
    os._exit(128 + number)


def place() -> PlaceInJob:
    """This process's place in its job; that of a single one where the launcher's variables do not fit together."""
    try:
        return place_in_job()
    except InputError:
        return PlaceInJob()


def exit_code(reason: str) -> int:
    """The exit code of a process that stopped with its work kept: 0, or 130 after Ctrl-C, so that a script ends too.

    Under a launcher it is 0 in any case: the launcher has got the Ctrl-C as well, and would report a failure.
    """
    return 130 if reason == "SIGINT" and place().world_size == 1 else 0
