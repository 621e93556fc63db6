"""The stream of batches: exact epochs, the same global batches on any number of ranks, resumable at any image.

stream = ShardStream("shards/fashion-mnist", split="train", global_batch=256, rank=0, world_size=2)
for batch in stream:            # the rest of the epoch; the next `for` continues with the next epoch
    batch.image                 # (B, C, H, W) uint8
stream.position                 # images seen by all ranks: the only state that a resume needs
"""

import concurrent.futures
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.address import Address, Location
from data_shards.io.errors import InputError, at_least
from data_shards.io.patience import Patience
from data_shards.manifest import Manifest
from data_shards.storage import ShardCache, shard_files
from data_shards.stream.ahead import Ahead
from data_shards.stream.loader import BatchLoader, Loaded, RankReading
from data_shards.stream.prefetch import Prefetcher
from data_shards.stream.processes import ReaderProcess
from data_shards.stream.reader import Reader

_BATCHES_AHEAD = 2  # for each thread or process
_SECONDS_BETWEEN_CALLS = 0.2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a global batch."""

    image: Tensor
    """uint8 in 0..255, (B, C, H, W) in any layout; B may be 0 where a short global batch has nothing for this rank."""
    index: Tensor
    """int64, shape (B,): index of each image within the split, in source order."""
    start: int
    """Position in the global stream of the global batch's first image."""
    count: int
    """Images in the global batch, over all ranks; the last of an epoch is short."""
    epoch: int
    """Epoch, from 0."""
    substituted: int
    """How many of this rank's images replace others that could not be read; `index` names the replacements."""

    def __getitem__(self, name: str) -> Tensor:
        if name not in ("image", "index"):
            raise KeyError(name)
        value: Tensor = getattr(self, name)
        return value


class ShardStream:
    """Batches of a split, epoch after epoch.

    place           folder of shards: a path, an address as in `io/address.py`, or a `Location`, which also says how
                    long faults of a server are waited out, and where its shards are cached
    split           name of the split
    global_batch    images in a global batch, over all ranks
    rank            this process, 0..world_size-1; gets `partition(count, rank, world_size)` of each global batch of
                    `count` images
    world_size      processes that read the stream together; all get the same number of batches
    workers         processes that read ahead for this rank; 0 reads ahead in a thread. They outlive the signals that
                    stop a job, end with this process, and are started again where they are lost
    seed            of the order
    position        where to begin: images of the global stream, over all ranks and epochs, that are skipped
    shuffle         False gives source order
    max_substitutes how many unreadable images this rank may replace by others (see `reader.py`) before it stops.
                    Ranks that want to stop together sum `batch.substituted` over ranks at each step
    flip            mirrors each image, left to right, or does not: by a bit of (image, epoch, seed)
    manifest        of the shards at `place`, where it has been read already; None reads it

    The batches are the same whatever `workers` is. Memory is O(shards + window). Raises InputError for a wrong
    argument, and while iterating when more images than `max_substitutes` cannot be read; MachineFault where this
    machine fails, or a server for longer than the location's patience.
    """

    def __init__(
        self,
        place: str | Path | Location,
        *,
        split: str,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        seed: int = 0,
        position: int = 0,
        shuffle: bool = True,
        max_substitutes: int = 0,
        flip: bool = False,
        manifest: Manifest | None = None,
    ) -> None:
        at_least(1, global_batch=global_batch, world_size=world_size)
        at_least(0, workers=workers, position=position, max_substitutes=max_substitutes)
        if not 0 <= rank < world_size:
            raise InputError(f"{rank} of {world_size} is not possible; ranks count from 0", parameter="rank")
        self._location = Location.of(place)
        self._patience = Patience(self._location.patience_seconds)
        self.manifest = Manifest.load(self._location) if manifest is None else manifest
        self.num_samples = self.manifest.num_samples(split)
        self.position = position
        self.substituted = 0
        self._max_substitutes, self._workers = max_substitutes, workers
        self._reading = RankReading(
            split=split,
            global_batch=global_batch,
            rank=rank,
            world_size=world_size,
            seed=seed,
            shuffle=shuffle,
            flip=flip,
        )
        address = Address(self._location)
        self.is_remote = address.local is None
        """Whether a batch may be waited for until a server answers."""
        self.while_waiting: Callable[[], None] | None = None
        """Called five times a second while a batch is waited for; what it raises leaves the wait."""
        self._files = shard_files(address, self.manifest, split=split, patience=self._patience)
        self._loader = BatchLoader(self.manifest, Reader(self.manifest, split, self._files), self._reading)
        self._processes: list[ReaderProcess] = []
        self._ahead: Ahead | None = None
        self._end: weakref.finalize | None = None
        self._prefetcher: Prefetcher | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 0."""
        return self.position // self.num_samples

    @property
    def reader_pids(self) -> list[int]:
        """Process ids of the reader processes that are running."""
        return [reader.pid for reader in self._processes if reader.pid is not None]

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = divmod(self.position, self.num_samples)
        order = self._loader.order_of(epoch)
        ahead = self._start()
        prefetcher = self._prefetcher
        waiting: deque[tuple[int, Future[Loaded]]] = deque()
        places = self._loader.starts(start)
        window = -1
        try:
            while True:
                while len(waiting) <= _BATCHES_AHEAD * max(1, self._workers):
                    if (begin := next(places, None)) is None:
                        break
                    waiting.append((begin, ahead.load(epoch, begin)))
                if not waiting:
                    return
                begin, future = waiting.popleft()
                if prefetcher is not None and (now := order.window_of(begin)) != window:
                    window = now
                    prefetcher.need(order.upcoming_shards(window))
                batch = self._accepted(self._result(future), epoch, begin)
                self.position = batch.start + batch.count
                yield batch
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """Ends threads and reader processes, closes files. Iterating again starts them anew."""
        if self._end is not None:
            self._end()
        self._ahead, self._processes, self._prefetcher = None, [], None
        self._loader.close()

    def _start(self) -> Ahead:
        if self._ahead is None:
            self._patience.begin()
            self._processes = [
                ReaderProcess(self.manifest, self._reading, self._location, self._patience.say)
                for _ in range(self._workers)
            ]
            self._ahead = Ahead([reader.load for reader in self._processes] or [self._loader.load])
            if isinstance(self._files, ShardCache):
                shards = self.manifest.shards_of(self._reading.split)
                self._prefetcher = Prefetcher(self._files, shards, self._location.cache_bytes)
            self._end = weakref.finalize(self, _end, self._patience, self._ahead, self._processes, self._prefetcher)
        return self._ahead

    def _result(self, future: Future[Loaded]) -> Loaded:
        while self.while_waiting is not None and not future.done():
            if not concurrent.futures.wait([future], timeout=_SECONDS_BETWEEN_CALLS).done:
                self.while_waiting()
        return future.result()

    def _accepted(self, loaded: Loaded, epoch: int, start: int) -> Batch:
        self.substituted += len(loaded.faults)
        if loaded.images is None or self.substituted > self._max_substitutes:
            count = f" ({self.substituted} such images where {self._max_substitutes} are allowed)"
            raise InputError(loaded.faults[0] + count)
        return Batch(
            image=torch.from_numpy(loaded.images.pixels),
            index=torch.from_numpy(loaded.images.samples),
            start=epoch * self.num_samples + start,
            count=self._loader.stop(start) - start,
            epoch=epoch,
            substituted=len(loaded.faults),
        )


def _end(patience: Patience, ahead: Ahead, processes: list[ReaderProcess], prefetcher: Prefetcher | None) -> None:
    patience.end()
    ahead.close()
    if prefetcher is not None:
        prefetcher.close()
    for reader in processes:
        reader.close()
