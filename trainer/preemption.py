"""Requests to stop: a signal, a file named STOP in the run folder, or the end of the run's time limit.

SIGTERM and SIGUSR2 are how batch systems ask, SIGINT is Ctrl-C, SIGHUP a closed terminal. Before the first update of a
process there is nothing to keep, and a signal ends it at once; from then on the processes stop together with a
checkpoint, after an update, between two batches of a longer pass, or while they wait for images (waiting.py). After a
stop the file `requeue` in the run folder holds "yes REASON" where the run should be started again, as a batch system
does, and "no REASON" where a person stopped it.
"""

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import torch

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from data_shards.io.lease import Lease
from trainer.process_group import Ranks
from trainer.stop_signals import SIGNALS, exit_code, handled, place

LEASE = "the run folder was taken over"
# Of several reasons the first one counts: a person's come before a batch system's.
_REASONS = (LEASE, "STOP", "SIGINT", "SIGHUP", "SIGTERM", "SIGUSR2", "walltime", "caller")
_TO_REQUEUE = ("SIGTERM", "SIGUSR2", "walltime")
# Looking for a file on a shared disk costs more than an update of a small model.
_SECONDS_BETWEEN_LOOKS = 1.0
# A pass over images that ends this soon after the request is finished first. torchrun kills after 30 s.
_GRACE_SECONDS = 5.0


class Interrupted(Exception):
    """A wait for images, or a pass over them, was left for a stop, on every process at the same batch."""


class StopRequest:
    """Records that this process was asked to stop. The ranks decide together whether all stop.

    run: the run folder. walltime_minutes: the time limit from now; 0 sets none. asked: whether the caller of the
    training wants it to stop.
    """

    def __init__(self, run: Path, walltime_minutes: float, asked: Callable[[], bool] = lambda: False) -> None:
        self.run, self._asked = run, asked
        self.lease: Lease | None = None
        """The lease on the run folder, where this process holds it."""
        self._deadline = time.monotonic() + 60 * walltime_minutes if walltime_minutes > 0 else None
        self._next_look = 0.0
        self._reason, self._since = "", 0.0
        self._training, self._entering = False, threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        # Python allows signal handlers in the main thread only; a training in another thread is stopped by the file.
        if threading.current_thread() is threading.main_thread():
            self._stack.enter_context(handled(self._on_signal))
            self._stack.enter_context(self._watched())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._request(signal.Signals(number).name)

    def _request(self, reason: str) -> None:
        if not self._reason:
            self._since = time.monotonic()
            self._reason = reason

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Handles signals in another thread, as the main one may wait for other processes: before training it ends all.

        Python runs a handler when the main thread is back from C++, but writes the signal's number to a file at once.
        """
        ours, systems = socket.socketpair()
        systems.setblocking(False)
        former = signal.set_wakeup_fd(systems.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(ours,), name="signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(former)
            systems.close()  # which ends the thread

    def _watch(self, ours: socket.socket) -> None:
        with ours:
            while number := ours.recv(1):
                if number[0] not in SIGNALS:
                    continue
                asked = signal.Signals(number[0])
                with self._entering:
                    if not self._training:
                        self._end_now(asked)
                self._request(asked.name)

    def _end_now(self, number: signal.Signals) -> None:
        """Ends the process before its first update."""
        code = 128 + number
        with contextlib.suppress(OSError):
            if self.lease is not None:
                write_requeue(self.run, number.name)
                code = exit_code(number.name)
                self.lease.release()
        if place().rank == 0:
            print(f"stopped by {number.name} before the first update: nothing was lost, start it again", flush=True)
        sys.stdout.flush()
        os._exit(code)

    def check_lease(self) -> None:
        """Raises InputError where another process has taken the run folder over."""
        if self.lease is not None:
            self.lease.check()

    def check_folder(self) -> None:
        """Before training: removes `requeue` of the former start.

        Raises InputError where a file STOP is in the run folder, or `requeue` cannot be written.
        """
        if self.lease is None:
            return
        stop, requeue = self.run / "STOP", self.run / "requeue"
        if os.path.lexists(requeue) and not _is_of_a_stop(requeue):
            what = "a folder" if requeue.is_dir() else "not the trainer's" if requeue.is_file() else "no file"
            raise InputError(f"{requeue}: is {what}, but a file of this name is written after a stop; rename it")
        if stop.exists():
            write_requeue(self.run, "STOP")
            raise InputError(f"{stop}: this file keeps the run from training; remove it and start again")
        requeue.unlink(missing_ok=True)

    def begin_training(self) -> None:
        """From here on there is something to keep, and signals are handled after an update or between two batches."""
        with self._entering:
            self._training = True

    @property
    def is_noticed(self) -> bool:
        """Whether a request has been noticed, as a signal is at once. Looks for none, so each start makes an update.

        Not that of the caller, which waits for the end of an update or of a pass.
        """
        return self._reason not in ("", "caller") or (self.lease is not None and self.lease.is_lost)

    def reason(self) -> str:
        """Why this process should stop, one of `_REASONS`; empty where it should not."""
        now = time.monotonic()
        if not self._reason and self._deadline is not None and now >= self._deadline:
            self._request("walltime")
        if not self._reason and self._asked():
            self._request("caller")
            self._since = math.inf  # a pass over images is finished first, however long it takes
        if not self._reason and now >= self._next_look:
            self._next_look = now + _SECONDS_BETWEEN_LOOKS
            if self.lease is not None and self.lease.is_lost:
                self._request(LEASE)
            elif (self.run / "STOP").exists():
                self._request("STOP")
        return self._reason

    def agreed_reason(self, ranks: Ranks) -> str:
        """The first of the reasons of all processes, which call this together; empty where there is none."""
        own = self.reason()
        flags = torch.tensor([float(own == reason) for reason in _REASONS], device=ranks.device)
        return next((reason for reason, flag in zip(_REASONS, ranks.sum_(flags).tolist(), strict=True) if flag), "")

    def is_late(self) -> bool:
        """Whether the request is some seconds old, so that a pass over images is left."""
        return bool(self.reason()) and time.monotonic() - self._since >= _GRACE_SECONDS


def _is_of_a_stop(requeue: Path) -> bool:
    """Whether a file is one that `write_requeue` wrote, and not someone else's."""
    return requeue.is_file() and requeue.read_bytes().startswith((b"yes ", b"no "))


def write_requeue(run: Path, reason: str) -> None:
    """Writes `requeue` after a stop."""
    write_text(run / "requeue", f"{'yes' if reason in _TO_REQUEUE else 'no'} {reason}\n")
