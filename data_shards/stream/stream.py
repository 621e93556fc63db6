"""The stream of batches: exact epochs, the same global batches on any number of ranks, resumable at any image.

stream = ShardStream("shards/fashion-mnist", split="train", global_batch=256, rank=0, world_size=2)
for batch in stream:            # the rest of the epoch; the next `for` continues with the next epoch
    batch.image                 # (B, C, H, W) uint8
stream.position                 # images seen by all ranks: the only state that a resume needs
"""

import functools
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_shards.io.address import Address
from data_shards.io.errors import InputError, at_least
from data_shards.io.partition import partition
from data_shards.manifest import Manifest
from data_shards.storage import DEFAULT_CACHE_BYTES, Prefetcher, ShardCache, shard_files
from data_shards.stream.order import EpochOrder
from data_shards.stream.reader import BadSample, Reader

_BATCHES_AHEAD = 2


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


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a worker returns: exceptions lose their type and form between processes, so faults are values."""

    batch: Batch | None
    """None where an image could be neither read nor replaced."""
    faults: tuple[str, ...]
    """What was wrong, one line an image."""


class BatchLoader:
    """loader[epoch, start] is this rank's part of the global batch that begins at `start` of an epoch.

    The arguments are those of `ShardStream`.
    """

    def __init__(
        self,
        manifest: Manifest,
        reader: Reader,
        *,
        split: str,
        global_batch: int,
        rank: int,
        world_size: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        self._reader = reader
        self._global_batch, self._rank, self._world_size = global_batch, rank, world_size
        self._order_of = functools.partial(EpochOrder, manifest, split=split, seed=seed, shuffle=shuffle)
        self._num_samples = manifest.num_samples(split)
        self._order: EpochOrder | None = None
        self._order_epoch = -1
        self._one_at_a_time = threading.Lock()

    def starts(self, start: int) -> Iterator[int]:
        """Where the global batches of an epoch begin, from `start` on.

        They are counted from the beginning of the epoch; a `start` inside a batch gives the rest of that batch first.
        """
        while start < self._num_samples:
            yield start
            start = self.stop(start)

    def stop(self, start: int) -> int:
        """Where the global batch around `start` ends."""
        size = self._global_batch
        return min(start - start % size + size, self._num_samples)

    def __getitem__(self, place: tuple[int, int]) -> Loaded:
        epoch, start = place
        count = self.stop(start) - start
        mine = partition(count, self._rank, self._world_size)
        with self._one_at_a_time:
            try:
                images = self._reader.read(self.order_of(epoch)(start + mine.start, start + mine.stop))
            except BadSample as error:
                return Loaded(batch=None, faults=(str(error),))
        batch = Batch(
            image=torch.from_numpy(images.pixels),
            index=torch.from_numpy(images.samples),
            start=epoch * self._num_samples + start,
            count=count,
            epoch=epoch,
            substituted=len(images.faults),
        )
        return Loaded(batch=batch, faults=images.faults)

    def order_of(self, epoch: int) -> EpochOrder:
        """The order of an epoch; the last one is kept."""
        if self._order is None or self._order_epoch != epoch:
            self._order, self._order_epoch = self._order_of(epoch=epoch), epoch
        return self._order


class ShardStream:
    """Batches of a split, epoch after epoch.

    path_or_url     folder of shards: a path, or an address as in `io/address.py`
    split           name of the split
    global_batch    images in a global batch, over all ranks
    rank            this process, 0..world_size-1; gets `partition(count, rank, world_size)` of each global batch of
                    `count` images
    world_size      processes that read the stream together; all get the same number of batches
    workers         processes that read ahead for this rank; 0 reads ahead in a thread
    seed            of the order
    position        where to begin: images of the global stream, over all ranks and epochs, that are skipped
    shuffle         False gives source order
    max_substitutes how many unreadable images this rank may replace by others (see `reader.py`) before it stops.
                    Ranks that want to stop together sum `batch.substituted` over ranks at each step
    cache_bytes     limit of the local cache of remote shards, in bytes, for all processes of the node together
    allow_pipe      whether an address may be a shell command

    The batches are the same whatever `workers` is. Memory is O(shards + window). Raises InputError for a wrong
    argument, and while iterating when more images than `max_substitutes` cannot be read.
    """

    def __init__(
        self,
        path_or_url: str | Path,
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
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        allow_pipe: bool = False,
    ) -> None:
        at_least(1, global_batch=global_batch, world_size=world_size)
        at_least(0, workers=workers, position=position, max_substitutes=max_substitutes)
        if not 0 <= rank < world_size:
            raise InputError(f"{rank} of {world_size} is not possible; ranks count from 0", parameter="rank")
        address = Address(path_or_url, allow_pipe=allow_pipe)
        self.manifest = Manifest.load(path_or_url, allow_pipe=allow_pipe)
        self.num_samples = self.manifest.num_samples(split)
        self.position = position
        self.substituted = 0
        self._max_substitutes, self._workers = max_substitutes, workers
        self._split = split
        self._files = shard_files(address, self.manifest, cache_bytes=cache_bytes, split=split)
        self._cache_bytes = cache_bytes
        self._reader = Reader(self.manifest, split, self._files)
        self._loader = BatchLoader(
            self.manifest,
            self._reader,
            split=split,
            global_batch=global_batch,
            rank=rank,
            world_size=world_size,
            seed=seed,
            shuffle=shuffle,
        )
        self._processes: DataLoader[Loaded] | None = None
        self._prefetcher: Prefetcher | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 0."""
        return self.position // self.num_samples

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = divmod(self.position, self.num_samples)
        order = self._loader.order_of(epoch)
        loaded = self._from_processes() if self._workers else self._from_thread(epoch, start)
        # Threads start after processes are forked, which would copy whatever locks they hold.
        prefetcher = self._start_prefetcher()
        window = -1
        for result in loaded:
            batch = self._accepted(result)
            if prefetcher is not None and (now := order.window_of(batch.start - epoch * self.num_samples)) != window:
                window = now
                prefetcher.need(order.upcoming_shards(window))
            self.position = batch.start + batch.count
            yield batch

    def close(self) -> None:
        """Ends threads and worker processes, closes files. Iterating again starts them anew."""
        self._processes = None
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None
        self._reader.close()

    def _from_processes(self) -> Iterator[Loaded]:
        if self._processes is None:
            # Batches are places in the stream, so this map-style set has no length and needs no collation.
            self._processes = DataLoader(
                cast("Dataset[Loaded]", self._loader),
                sampler=_Places(self, self._loader),
                batch_size=None,
                num_workers=self._workers,
                prefetch_factor=_BATCHES_AHEAD,
                persistent_workers=True,
            )
        return iter(self._processes)

    def _from_thread(self, epoch: int, start: int) -> Iterator[Loaded]:
        ahead: deque[Future[Loaded]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for begin in self._loader.starts(start):
                ahead.append(thread.submit(self._loader.__getitem__, (epoch, begin)))
                if len(ahead) > _BATCHES_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _start_prefetcher(self) -> Prefetcher | None:
        if self._prefetcher is None and isinstance(self._files, ShardCache):
            self._prefetcher = Prefetcher(self._files, self.manifest.shards_of(self._split), self._cache_bytes)
        return self._prefetcher

    def _accepted(self, loaded: Loaded) -> Batch:
        self.substituted += len(loaded.faults)
        if loaded.batch is None or self.substituted > self._max_substitutes:
            count = f" ({self.substituted} such images where {self._max_substitutes} are allowed)"
            raise InputError(loaded.faults[0] + count)
        return loaded.batch


class _Places:
    """The batches that worker processes load: the rest of the epoch from the stream's position, anew each epoch."""

    def __init__(self, stream: ShardStream, loader: BatchLoader) -> None:
        self._stream, self._loader = stream, loader

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, start = divmod(self._stream.position, self._stream.num_samples)
        return ((epoch, begin) for begin in self._loader.starts(start))
