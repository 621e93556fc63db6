"""Which images of a source go into which shard."""

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.manifest import index_name
from data_shards.sources.source import Read, Source


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The images of the source that go into one shard."""

    name: str
    """File name of the tar."""
    split: str
    """Split of the source."""
    rows: NDArray[np.int64]
    """Which images of the split, ascending."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard with what a process needs to know of the source in order to write it."""

    name: str
    """File name of the tar."""
    split: str
    """Split of the source."""
    keys: tuple[str, ...]
    """Of its images."""
    stamps: NDArray[np.uint64]
    """Of its images; see `Source.stamps`."""
    read: Read
    """Its images."""

    @property
    def index_name(self) -> str:
        """File name of the index."""
        return index_name(self.name)

    @property
    def key_hashes(self) -> NDArray[np.uint64]:
        """64 bits of each key."""
        return np.fromiter((key_hash(self.split, key) for key in self.keys), np.uint64, len(self.keys))


def key_hash(split: str, key: str) -> int:
    """64 bits of a key in a split."""
    return xxhash.xxh3_64_intdigest(f"{split}/{key}".encode(errors="surrogateescape"))


def shard_plans(source: Source, shard_images: int) -> list[ShardPlan]:
    """All shards of a source, split after split.

    In the order of the source, each has `shard_images` and the last the rest. Where images are spread by hashes, they
    have that many on average: as a shard is added, one of the others is divided, and the rest stay as they are.
    """
    return [
        ShardPlan(name=f"{split}-{number:06d}.tar", split=split, rows=rows)
        for split, keys in source.keys.items()
        for number, rows in enumerate(_rows(len(keys), source.hashes(split), shard_images))
        if len(rows)
    ]


def _rows(images: int, hashes: NDArray[np.uint64] | None, shard_images: int) -> list[NDArray[np.int64]]:
    starts = range(0, images, shard_images)
    if hashes is None:
        return [np.arange(start, min(start + shard_images, images)) for start in starts]
    places = linear_hash(hashes, len(starts))
    order = np.argsort(places, kind="stable")
    return np.split(order, np.searchsorted(places[order], np.arange(1, len(starts))))


def linear_hash(hashes: NDArray[np.uint64], shards: int) -> NDArray[np.int64]:
    """The shard, 0..shards-1, of each of n hashes.

    Litwin, "Linear hashing" (1980): the last bits of the hash, one bit fewer where there is no such shard yet. From
    `shards` to `shards` + 1 the images of one shard are divided between it and the new one.
    """
    bits = (shards - 1).bit_length()
    places = (hashes & np.uint64(2**bits - 1)).astype(np.int64)
    return np.where(places < shards, places, places - 2**bits // 2)


def task_of(source: Source, plan: ShardPlan, stamps: NDArray[np.uint64]) -> ShardTask:
    """stamps: of the split's images."""
    keys = source.keys[plan.split]
    return ShardTask(
        name=plan.name,
        split=plan.split,
        keys=tuple(keys[row] for row in plan.rows),
        stamps=stamps[plan.rows],
        read=source.reader(plan.split, plan.rows),
    )
