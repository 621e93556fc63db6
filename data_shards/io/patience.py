"""Faults of servers and networks that pass are waited out, with growing pauses, and what is waited for is said."""

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from data_shards.io.address import Refused, Unreachable
from data_shards.io.errors import MachineFault
from data_shards.io.progress import duration

T = TypeVar("T")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0  # seconds
_FIRST_QUIET, _LONGEST_QUIET = 5.0, 60.0  # seconds a call may bring nothing: a hung one is soon noticed, a slow one too
_DOUBT = 30.0  # seconds in which a missing or damaged file may still turn out to be a fault that passes
_BETWEEN_LINES = 10.0  # seconds between the first two lines on what is waited for; doubles after each


class RareLines:
    """Prints what is waited for on stderr: at once, then at intervals that double; anew after a minute of silence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = self._printed = float("-inf")
        self._interval = _BETWEEN_LINES

    def __call__(self, line: str) -> None:
        """Prints `line` unless another was printed a short while ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._last > 60 + self._interval:
                self._printed, self._interval = float("-inf"), _BETWEEN_LINES
            self._last = now
            if now - self._printed < self._interval:
                return
            if self._printed > float("-inf"):
                self._interval *= 2
            self._printed = now
        print(line, file=sys.stderr, flush=True)


class Patience:
    """How long a fault that may pass is waited out.

    seconds: from the first failure of a call to the last try; say: called with what is waited for before each pause
    """

    def __init__(self, seconds: float, say: Callable[[str], None] | None = None) -> None:
        self._seconds = seconds
        self.say = RareLines() if say is None else say
        self._ended = threading.Event()

    def begin(self) -> None:
        """Makes waits possible again after `end`."""
        self._ended = threading.Event()

    def end(self) -> None:
        """Ends the waits of other threads: nobody needs any longer what they wait for."""
        self._ended.set()

    def wait_out(self, action: Callable[[float], T], *, final: tuple[type[Exception], ...] = ()) -> T:
        """The result of `action`, tried again while it raises Unreachable or FileNotFoundError.

        A file that is missing, refused or damaged is asked for again for half a minute. action: gets the seconds for
        which a call may bring nothing. final: what is not waited out. Raises what `action` raised last; MachineFault
        where the server or the network did not come back, or refuses the file, and after `end`.
        """
        began: float | None = None
        pause, quiet = _FIRST_PAUSE, _FIRST_QUIET
        ended = self._ended
        while True:
            try:
                return action(quiet)
            except final:
                raise
            except (Unreachable, FileNotFoundError) as error:
                now = time.monotonic()
                began = now if began is None else began
                passing = type(error) is Unreachable
                limit = self._seconds if passing else min(self._seconds, _DOUBT)
                if now - began >= limit:
                    if passing:
                        raise MachineFault(_gave_up(error, now - began)) from error
                    if isinstance(error, Refused):
                        raise MachineFault(f"{error}; check the address and the credentials") from error
                    raise
                if ended.is_set():
                    raise MachineFault(_line(error)) from error
                self.say(
                    f"waiting: {_line(error)}; tried again for up to {duration(began + limit - now)} "
                    "(data.patience_seconds)"
                )
                ended.wait(min(pause * random.uniform(0.75, 1.25), max(0.0, began + limit - now)))
                pause, quiet = min(2 * pause, _LONGEST_PAUSE), min(2 * quiet, _LONGEST_QUIET)


def _gave_up(error: BaseException, waited: float) -> str:
    tried = f", tried for {duration(waited)}" if waited >= 1 else ""
    return f"{_line(error)}{tried}; start the same command again when it is back, or raise data.patience_seconds"


def _line(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: not there"
    return str(error)
