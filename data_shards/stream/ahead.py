"""Loads batches ahead of their use, in daemon threads: a long wait for a server never keeps a process from ending."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from data_shards.stream.loader import Loaded


class Ahead:
    """Threads that load the places of a stream in the order in which they are asked for.

    loads: what each thread calls with epoch and start, one function a thread
    """

    def __init__(self, loads: Sequence[Callable[[int, int], Loaded]]) -> None:
        self._asked: queue.SimpleQueue[tuple[Future[Loaded], int, int] | None] = queue.SimpleQueue()
        # The threads hold the queue but not this object, so that a stream that is forgotten is collected.
        self._threads = [
            threading.Thread(target=_work, args=(self._asked, load), daemon=True, name="shard reader") for load in loads
        ]
        for thread in self._threads:
            thread.start()

    def load(self, epoch: int, start: int) -> "Future[Loaded]":
        """The batch at a place, when it is there."""
        future: Future[Loaded] = Future()
        self._asked.put((future, epoch, start))
        return future

    def close(self) -> None:
        """Ends the threads after what they are loading now."""
        for _ in self._threads:
            self._asked.put(None)


def _work(
    asked: "queue.SimpleQueue[tuple[Future[Loaded], int, int] | None]", load: Callable[[int, int], Loaded]
) -> None:
    while (task := asked.get()) is not None:
        future, epoch, start = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            loaded = load(epoch, start)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(loaded)
            del loaded  # a batch may be large, and the next may not come for long
        del task, future
