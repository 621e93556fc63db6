"""How a process learns that another one has failed or was lost while it may be inside a collective.

A thread writes a heartbeat, looks for a failure that another process has posted, and watches the process with the next
rank; so whichever processes are lost, one that is left sees it. A second thread ends this process where the first one
gets no answer, or where the main thread does not come back.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from data_shards.io.processes import Process
from trainer.peers.failure import Failure, print_failures
from trainer.peers.store import STORE_ERRORS, Store

# A process on another machine is lost after this many heartbeats that did not come; on this machine its end is seen.
_SECONDS_BETWEEN_BEATS, _MISSED_BEATS = 1.0, 18
_SECONDS_BETWEEN_LOOKS = 0.2
# Where the store does not answer for so long, its machine is lost.
_STORE_SECONDS = 18.0
# How long a process that another one's failure ends may take to end by an error of its own.
_GRACE_SECONDS = 6.0
# The kernel closes a killed process's connections before the process itself is gone, by seconds on a busy machine.
_DYING_SECONDS = 5.0
# Processes that fail for the same reason do so at nearly the same time, and need not wait for each other.
_SETTLING_SECONDS = 1.0


class Watch:
    """One process's watch over the others. store: a client of the threads' own, as each waits under a lock."""

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.failure: Failure | None = None
        """The first failure of another process that is known here."""
        self.is_stopping: Callable[[], bool] = lambda: False
        """Whether this process was asked to stop; called from the watch's own thread, which passes it on."""
        self.another_stops = False
        """Set within some seconds after any process was asked to stop."""
        self.ending = False
        """Set once this process ends by an error of its own, which it reports itself."""
        self._store = store
        self._others: Sequence[Process] = ()
        self._stopped, self._noting = threading.Event(), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._last_round = 0.0

    def start(self, others: Sequence[Process]) -> None:
        """Begins to watch. others: the process of each rank."""
        self._others, self._last_round = others, time.monotonic()
        for target in (self._beat, self._guard):
            self._threads.append(threading.Thread(target=target, name=f"peers{target.__name__}", daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def note(self, failure: Failure) -> None:
        """Notes the failure of another process and prints it, unless this process fails itself."""
        with self._noting:
            if self.failure is not None or failure.rank == self.rank:
                return
            self._stopped.wait(_SETTLING_SECONDS)
            if not self.ending:
                print_failures([failure])
            self.failure = failure
        with contextlib.suppress(*STORE_ERRORS):
            self._store.set(f"heard/{self.rank}", "")

    def failure_of_store(self, error: Exception | str) -> Failure:
        """The failure behind a store that does not answer: that of rank 0, whose process holds it."""
        text = " ".join(str(error).split())[:120]
        host = self._others[0].host if self._others else "its machine"
        reason, deadline = "", time.monotonic() + _DYING_SECONDS
        while self._others and self._others[0].is_of_this_machine():
            reason = self._lost(0, 0)
            if reason or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        reason = reason or f"the job's store does not answer, so this rank or its launcher has ended ({text})"
        return Failure(rank=0, host=host, reason=reason, code=1)

    def wait_for_failure(self) -> Failure | None:
        """The failure of another process that made a collective of this one fail; None where no process has ended."""
        deadline = time.monotonic() + (_MISSED_BEATS + 3) * _SECONDS_BETWEEN_BEATS
        while self.failure is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.failure

    def _beat(self) -> None:
        neighbour, seen, missed = (self.rank + 1) % self.world_size, -1, 0
        while not self._stopped.wait(_SECONDS_BETWEEN_BEATS):
            try:
                self._store.add(f"beats/{self.rank}", 1)
                if self._store.check(["failure"]):
                    self.note(Failure(**json.loads(self._store.get("failure"))))
                    return
                if self.is_stopping():
                    self._store.set("stopping", "")
                self.another_stops = self._store.check(["stopping"])
                newest = self._store.add(f"beats/{neighbour}", 0)
                missed, seen = (0 if newest != seen else missed + 1), newest
                reason = self._lost(neighbour, missed)
                if reason and not self._store.check([f"left/{neighbour}"]):
                    lost = Failure(rank=neighbour, host=self._others[neighbour].host, reason=reason, code=1)
                    self._store.set(f"left/{neighbour}", "")
                    first = self._store.compare_set("failure", "", json.dumps(asdict(lost)))
                    self.note(Failure(**json.loads(first)))
                    return
            except STORE_ERRORS as error:
                if not self._stopped.is_set():
                    self.note(self.failure_of_store(error))
                return
            self._last_round = time.monotonic()

    def _lost(self, rank: int, missed: int) -> str:
        """How the process of a rank was lost; empty where it runs. missed: its heartbeats that did not come."""
        process = self._others[rank]
        if process.is_of_this_machine():
            return "" if process.runs() else f"process {process.pid} was killed or crashed; see its output"
        return f"no sign of life for {missed * _SECONDS_BETWEEN_BEATS:.0f} s" if missed >= _MISSED_BEATS else ""

    def _guard(self) -> None:
        noted_at, looked = None, time.monotonic()
        while not self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
            now, before = time.monotonic(), looked
            looked = now
            if now - before > 10 * _SECONDS_BETWEEN_LOOKS:
                self._last_round = now  # this process itself was held up, so its other thread was too
            if self.failure is None and now - self._last_round > _STORE_SECONDS:
                self.note(self.failure_of_store(f"for {_STORE_SECONDS:.0f} s"))
            if self.failure is None or self.ending:
                continue
            noted_at = noted_at or now
            if now - noted_at > _GRACE_SECONDS:
                # The main thread is in a collective that nothing but its own timeout ends.
                sys.stderr.flush()
                os._exit(self.failure.code)
