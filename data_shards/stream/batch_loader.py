"""Loads one rank's part of one global batch. Holds all that a worker process needs."""

import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.io.partition import partition
from data_shards.manifest import Manifest
from data_shards.stream.order import EpochOrder
from data_shards.stream.reader import BadSample, Reader


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


@dataclass(frozen=True)
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
                return Loaded(None, (str(error),))
        batch = Batch(
            image=torch.from_numpy(images.pixels),
            index=torch.from_numpy(images.samples),
            start=epoch * self._num_samples + start,
            count=count,
            epoch=epoch,
            substituted=len(images.faults),
        )
        return Loaded(batch, images.faults)

    def order_of(self, epoch: int) -> EpochOrder:
        """The order of an epoch; the last one is kept."""
        if self._order is None or self._order_epoch != epoch:
            self._order, self._order_epoch = self._order_of(epoch=epoch), epoch
        return self._order
