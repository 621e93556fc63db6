"""One rank's part of each global batch, as arrays: what is read in this process and in reader processes alike."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_shards.io.partition import partition
from data_shards.manifest import Manifest
from data_shards.stream.order import EpochOrder
from data_shards.stream.reader import BadSample, Images, Reader


@dataclass(frozen=True, kw_only=True)
class RankReading:
    """What a rank reads, as in `ShardStream`, which says what the fields mean."""

    split: str
    global_batch: int
    rank: int
    world_size: int
    seed: int
    shuffle: bool
    flip: bool


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A part of a global batch that was read."""

    images: Images | None
    """None where an image could be neither read nor replaced."""
    faults: tuple[str, ...]
    """What was wrong with the images, one line each."""


class BatchLoader:
    """Loads the part of the global batch that begins at a place of an epoch."""

    def __init__(self, manifest: Manifest, reader: Reader, reading: RankReading) -> None:
        self._reader, self._reading, self._identity = reader, reading, manifest.hash
        self._num_samples = manifest.num_samples(reading.split)
        order = functools.partial(EpochOrder, manifest, split=reading.split, seed=reading.seed, shuffle=reading.shuffle)
        self.order_of = functools.lru_cache(maxsize=2)(lambda epoch: order(epoch=epoch))
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
        size = self._reading.global_batch
        return min(start - start % size + size, self._num_samples)

    def close(self) -> None:
        """Closes the reader's files, after what is being loaded now; leaves them open where that waits for a server."""
        if self._one_at_a_time.acquire(timeout=1.0):
            try:
                self._reader.close()
            finally:
                self._one_at_a_time.release()

    def load(self, epoch: int, start: int) -> Loaded:
        """This rank's part of the global batch that begins at `start` of `epoch`. Raises MachineFault."""
        mine = partition(self.stop(start) - start, self._reading.rank, self._reading.world_size)
        with self._one_at_a_time:
            try:
                images = self._reader.read(self.order_of(epoch)(start + mine.start, start + mine.stop))
            except BadSample as error:
                return Loaded(images=None, faults=(str(error),))
        if self._reading.flip:
            turned = flipped(images.samples, f"{self._identity}|{self._reading.split}", self._reading.seed, epoch)
            images.pixels[turned] = images.pixels[turned][..., ::-1]
        return Loaded(images=images, faults=images.faults)


def flipped(samples: NDArray[np.int64], identity: str, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Which of the samples, shape (B,), are mirrored in an epoch: each by a bit of its own, half of them on average.

    A function of (identity, seed, epoch, sample) alone, so the same on any number of ranks and workers.
    """
    digest = hashlib.sha256(f"{identity}|{seed}|{epoch}|flip".encode()).digest()
    # splitmix64 (Steele, Lea and Flood, 2014) at the sample's place of a sequence that the digest starts.
    bits = samples.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(digest[:8], "little"))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits >> np.uint64(63)).astype(np.bool_)
