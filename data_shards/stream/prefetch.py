"""Shards of the coming windows, fetched into the cache by threads before they are read."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards.io.address import Unreachable
from data_shards.manifest import Shard
from data_shards.storage import ShardCache

_THREADS = 2


class Prefetcher:
    """Threads that fetch the shards given to `need` into the cache, the most urgent first.

    All ranks of a node may do so at once: a shard that another process is downloading is skipped.

    shards       the shards of the split, in source order
    limit_bytes  never fetch further ahead than this, the limit of the cache, or it would push out what is in use
    """

    def __init__(self, cache: ShardCache, shards: Sequence[Shard], limit_bytes: int) -> None:
        self._cache, self._shards, self._limit = cache, shards, limit_bytes
        self._wanted: list[Shard] = []
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def need(self, numbers: NDArray[np.int64]) -> None:
        """Replaces what is still to be fetched by the shards of these numbers, the most urgent first."""
        wanted: list[Shard] = []
        room = self._limit
        for number in numbers.tolist():
            room -= self._shards[number].bytes
            if room < 0:
                break
            wanted.append(self._shards[number])
        with self._changed:
            self._wanted = wanted[::-1]
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads after what they are fetching now; does not wait where that takes long."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=0.5)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted)
                if self._closed:
                    return
                shard = self._wanted.pop()
            try:
                self._cache.fetch_if_free(shard)
            except (Unreachable, OSError):
                continue  # not lost: the reader finds the same fault when it opens the shard, and reports it
