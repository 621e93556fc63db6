"""Walks the order of a data set that need not exist, and counts what is read by a rank and fetched by a node.

No image is read. Made-up shards are equal except for the last, and two numbers a shard are all that is kept, so that
10^9 images take hardly more memory than 10^4.
"""

import argparse
import hashlib
import resource
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_shards.io.address import DEFAULT_CACHE_BYTES
from data_shards.io.configuration import PositiveInt, configuration
from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.progress import Progress
from data_shards.manifest import DEFAULT_WINDOW, Manifest
from data_shards.pixels import TAR_BYTES
from data_shards.stream.order import Counted, EpochOrder, ShuffleQuality, shuffle_quality

_SPLIT = "train"
_MADE_UP = {
    "images": (1_000_000, "images"),
    "shard_images": (4096, "images a shard"),
    "image_bytes": (3 * 64 * 64, "bytes of an image"),
    "window": (DEFAULT_WINDOW, "shards a window"),
}


@configuration
class Cluster:
    """The processes that read."""

    ranks: PositiveInt
    """Processes in all."""
    ranks_per_node: PositiveInt
    """Processes that share a cache."""
    global_batch: PositiveInt
    """Images a step, over all ranks."""
    cache_bytes: PositiveInt
    """Limit of a node's cache, in bytes."""

    @property
    def nodes(self) -> int:
        """Machines, the last of which may have fewer ranks."""
        return -(-self.ranks // self.ranks_per_node)


class Sized(Counted, Protocol):
    """What is walked: counts as for the order, and the bytes of a shard and of an image."""

    shard_bytes: int
    image_bytes: int


class MadeUpShards:
    """In place of a manifest: `images` images in equal shards."""

    def __init__(self, *, images: int, shard_images: int, image_bytes: int, window: int) -> None:
        at_least(1, images=images, shard_images=shard_images, image_bytes=image_bytes, window=window)
        self._images, self._shard_images = images, shard_images
        self.window = window
        self.image_bytes = image_bytes
        self.shard_bytes = min(shard_images, images) * (image_bytes + TAR_BYTES)
        self.hash = hashlib.sha256(f"{images} {shard_images} {window}".encode()).hexdigest()

    def shard_counts(self, split: str) -> NDArray[np.int64]:
        """Samples in each shard; shape (shards,)."""
        counts = np.full(-(-self._images // self._shard_images), self._shard_images, np.int64)
        counts[-1] = self._images - self._shard_images * (len(counts) - 1)
        return counts


class RealShards:
    """The same facts of the first split of a real manifest; shards count with their mean size."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest, self._split = manifest, manifest.splits[0]
        self.hash, self.window = manifest.hash, manifest.window
        shards = manifest.shards_of(self._split)
        self.shard_bytes = sum(shard.bytes for shard in shards) // len(shards)
        self.image_bytes = sum(shard.bytes for shard in shards) // manifest.num_samples(self._split)

    def shard_counts(self, split: str) -> NDArray[np.int64]:
        """Samples in each shard of the first split; shape (shards,)."""
        return self._manifest.shard_counts(self._split)


@dataclass(frozen=True, kw_only=True)
class EpochWalk:
    """What was counted."""

    images: int
    """Images of the epoch."""
    walked: int
    """Positions walked, from the start of the epoch."""
    steps: int
    """Global batches walked."""
    rank_bytes: tuple[int, int]
    """Least and most bytes of images that a rank reads while walking."""
    fetched_bytes: tuple[int, int]
    """Least and most bytes of shards that a node fetches while walking, with its cache empty at first."""
    quality: ShuffleQuality
    """Of the start of the epoch."""


class _Cache:
    """Which shards a node holds, the longest unused first."""

    def __init__(self, limit: int, shard_bytes: int) -> None:
        self._most, self._held = limit // shard_bytes, OrderedDict[int, None]()
        self.fetched = 0

    def use(self, shards: NDArray[np.int64]) -> None:
        for shard in shards.tolist():
            if shard in self._held:
                self._held.move_to_end(shard)
                continue
            self.fetched += 1
            self._held[shard] = None
            if len(self._held) > self._most:
                self._held.popitem(last=False)


def walk(shards: Sized, cluster: Cluster, *, positions: int) -> EpochWalk:
    """Walks the first `positions` of an epoch. Raises InputError where a cache cannot hold one window."""
    at_least(1, positions=positions)
    counts = shards.shard_counts(_SPLIT)
    window_bytes = min(shards.window, len(counts)) * shards.shard_bytes
    if cluster.cache_bytes < window_bytes:
        raise InputError(
            f"{cluster.cache_bytes} is less than the {window_bytes} of one window", parameter="cache_bytes"
        )
    order = EpochOrder(shards, split=_SPLIT, seed=0, epoch=0)
    ends = np.cumsum(counts)
    positions = min(positions, order.num_samples)
    caches = [_Cache(cluster.cache_bytes, shards.shard_bytes) for _ in range(cluster.nodes)]
    read = np.zeros(cluster.ranks, np.int64)
    edges = np.arange(cluster.ranks + 1)
    node_edges = np.append(np.arange(0, cluster.ranks, cluster.ranks_per_node), cluster.ranks)
    with Progress("simulate", positions, "positions") as bar:
        steps = 0
        for start in range(0, positions, cluster.global_batch):
            stop = min(start + cluster.global_batch, positions)
            samples = order(start, stop)  # (images of the batch,)
            bounds = len(samples) * edges // cluster.ranks  # (ranks + 1,), cut as by `partition`
            read += np.diff(bounds)
            of_shards = np.searchsorted(ends, samples, side="right")
            for cache, first, last in zip(caches, bounds[node_edges[:-1]], bounds[node_edges[1:]], strict=True):
                cache.use(_in_order_of_need(of_shards[first:last]))
            steps += 1
            bar.update(stop)
    fetched = [cache.fetched * shards.shard_bytes for cache in caches]
    return EpochWalk(
        images=order.num_samples,
        walked=positions,
        steps=steps,
        rank_bytes=(int(read.min()) * shards.image_bytes, int(read.max()) * shards.image_bytes),
        fetched_bytes=(min(fetched), max(fetched)),
        quality=shuffle_quality(order),
    )


def _in_order_of_need(shards: NDArray[np.int64]) -> NDArray[np.int64]:
    distinct, first = np.unique(shards, return_index=True)
    return distinct[first.argsort()]


def add_arguments(parser: OneLineParser) -> None:
    """The options of the command."""
    parser.add_argument("shards", nargs="?", help="folder of real shards to walk; without it they are made up")
    for name, (default, text) in _MADE_UP.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, metavar="N", help=f"made up: {text} (default: {default})")
    parser.acts_only(
        lambda args: args.shards is None,
        *_MADE_UP,
        otherwise="is for made up shards, and real ones are given; leave it out",
    )
    parser.add_argument("--ranks", type=int, default=8, metavar="N", help="processes (default: 8)")
    parser.add_argument("--ranks-per-node", type=int, default=8, metavar="N", help="that share a cache (default: 8)")
    parser.add_argument("--global-batch", type=int, default=1024, metavar="N", help="over all ranks (default: 1024)")
    parser.add_argument(
        "--cache-bytes", type=int, default=DEFAULT_CACHE_BYTES, metavar="N", help="a node's cache (default: 64 GB)"
    )
    parser.add_argument(
        "--positions",
        type=int,
        default=2_000_000,
        metavar="N",
        help="how far into the epoch to walk (default: 2000000)",
    )


def run(args: argparse.Namespace) -> None:
    """Walks and prints what was counted."""
    cluster = Cluster(
        ranks=args.ranks,
        ranks_per_node=args.ranks_per_node,
        global_batch=args.global_batch,
        cache_bytes=args.cache_bytes,
    )
    asked = {name: getattr(args, name) for name in _MADE_UP if getattr(args, name) is not None}
    shards: Sized
    if args.shards is not None:
        shards = RealShards(Manifest.load(args.shards))
    else:
        shards = MadeUpShards(**{name: default for name, (default, _) in _MADE_UP.items()} | asked)
    result = walk(shards, cluster, positions=args.positions)
    print(f"{result.images:,} images an epoch; walked {result.walked:,} positions in {result.steps:,} global batches")
    print(f"  {cluster.ranks} ranks on {cluster.nodes} nodes, cache of {cluster.cache_bytes / 1e9:,.1f} GB a node")
    print(f"  read by a rank: {_range(result.rank_bytes)}")
    print(f"  fetched by a node: {_range(result.fetched_bytes)}")
    print(f"  shuffle: {result.quality}")
    # Linux counts kilobytes.
    print(f"  peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def _range(least_most: tuple[int, int]) -> str:
    least, most = (f"{value / 1e9:,.3f} GB" for value in least_most)
    return least if least == most else f"{least} to {most}"
