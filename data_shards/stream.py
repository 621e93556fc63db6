"""The stream of batches: exact epochs, the same global batches on any number of ranks, resumable at any image.

stream = ShardStream("shards/fashion-mnist", split="train", global_batch=256, rank=0, world_size=2)
for batch in stream:            # the rest of the epoch; the next `for` goes on with the next epoch
    batch.image                 # (B, C, H, W) uint8
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.address import Address
from data_shards.errors import InputError
from data_shards.manifest import Manifest
from data_shards.order import EpochOrder
from data_shards.reader import BadSample, Reader

_BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a global batch."""

    image: Tensor
    """uint8 in 0..255, shape (B, C, H, W); B may be 0 where a short global batch has nothing for this rank."""
    index: Tensor
    """int64, shape (B,): index of each image within the split, in source order."""
    start: int
    """Position in the global stream of the global batch's first image."""
    count: int
    """Images in the global batch, over all ranks; the last of an epoch is short."""
    epoch: int
    """Epoch, from 0."""

    def __getitem__(self, name: str) -> Tensor:
        if name not in ("image", "index"):
            raise KeyError(name)
        value: Tensor = getattr(self, name)
        return value


class ShardStream:
    """Batches of a split, epoch after epoch.

    path_or_url  folder of shards
    split        name of the split
    global_batch images in a global batch, over all ranks
    rank         this process, 0..world_size-1; gets the positions count*rank//world_size up to
                 count*(rank+1)//world_size of each global batch of `count` images
    world_size   processes that share the stream
    workers      processes that read ahead for this rank; 0 reads ahead in a thread
    seed         of the order
    position     images of the global stream to begin behind, over all ranks and epochs
    shuffle      False gives source order

    Raises InputError for a wrong argument, and for a damaged shard when it is reached.
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
    ) -> None:
        if global_batch < 1:
            raise InputError(f"global_batch: {global_batch} is not possible; use at least 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank: {rank} of {world_size} is not possible; ranks count from 0")
        if workers < 0 or position < 0:
            raise InputError("workers and position: must be 0 or more")
        self.manifest = Manifest.load(path_or_url)
        self.num_samples = self.manifest.num_samples(split)
        self.position = position
        self._split, self._seed, self._shuffle = split, seed, shuffle
        self._global_batch, self._rank, self._world_size = global_batch, rank, world_size
        self._reader = Reader(self.manifest, split, Address(path_or_url))

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 0."""
        return self.position // self.num_samples

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = divmod(self.position, self.num_samples)
        order = EpochOrder(self.manifest, split=self._split, seed=self._seed, epoch=epoch) if self._shuffle else None
        starts = iter(
            [
                start,
                *range(start - start % self._global_batch + self._global_batch, self.num_samples, self._global_batch),
            ]
        )
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for begin in starts:
                pending.append(pool.submit(self._load, order, epoch, begin))
                if len(pending) > _BATCHES_AHEAD:
                    yield self._take(pending.popleft())
            while pending:
                yield self._take(pending.popleft())

    def _take(self, future: "Future[Batch]") -> Batch:
        try:
            batch = future.result()
        except BadSample as error:
            raise InputError(str(error)) from error
        self.position = batch.start + batch.count
        return batch

    def _load(self, order: EpochOrder | None, epoch: int, start: int) -> Batch:
        # The grid of global batches begins anew with each epoch, so a resume inside a batch gives what is left of it.
        stop = min(start - start % self._global_batch + self._global_batch, self.num_samples)
        count = stop - start
        mine = start + count * self._rank // self._world_size, start + count * (self._rank + 1) // self._world_size
        samples: NDArray[np.int64] = order(*mine) if order is not None else np.arange(*mine, dtype=np.int64)
        return Batch(
            image=torch.from_numpy(self._reader.read(samples)),
            index=torch.from_numpy(samples),
            start=epoch * self.num_samples + start,
            count=count,
            epoch=epoch,
        )
