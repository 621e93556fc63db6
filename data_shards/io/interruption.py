"""Ctrl-C while a command is still importing its modules, which takes seconds."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = "interrupted; the same command goes on from here"


def one_line_when_interrupted() -> None:
    """From here on, until the command itself begins, Ctrl-C ends the process with one line and exit code 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)


def interrupt_as_usual() -> None:
    """Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(130)
