"""Which images of a split are measured, and which process measures which of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from trainer.process_group import Ranks

BLOCK = 50
"""Images that go through the network together. Blocks do not depend on the processes, so neither does rounding."""


def evenly_spaced(count: int, total: int) -> np.ndarray:
    """`count` of the indices 0 ... total - 1, equally far apart, so that no stretch of the data set is left out.

    MNIST's test set, for one, is easier in its first half. Returns (count,), int64, increasing.
    """
    return np.arange(count, dtype=np.int64) * total // count


def subset_indices(manifest: Manifest, split: str, count: int) -> np.ndarray:
    """The indices of the `count` images of `split` that are measured, (count,)."""
    if split not in manifest.splits:
        raise InputError(f"split: {split!r} is not in the shards; use one of {', '.join(manifest.splits)}")
    total = manifest.num_samples(split)
    if not 1 <= count <= total:
        raise InputError(f"images: {count} asked for, but split {split} has {total}; use 1 to {total}")
    return evenly_spaced(count, total)


def share(count: int, ranks: Ranks) -> tuple[int, int]:
    """This process's [start, stop) of `count` images, in whole blocks; the shares of all processes tile them."""
    own = ranks.partition(-(-count // BLOCK))
    first, last = own.start, own.stop
    return min(first * BLOCK, count), min(last * BLOCK, count)


def subset_blocks(
    shards: str | Path, split: str, indices: np.ndarray, ranks: Ranks
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """This process's share of the images `indices`, block by block.

    indices: (N,), increasing, within the split. Yields (the block's places in `indices`, its indices (B,), its images
    (B, C, H, W) as float32 in [0, 1] on the process's device).
    """
    start, stop = share(len(indices), ranks)
    if start == stop:
        return
    wanted = indices[start:stop]
    stream = ShardStream(shards, split=split, global_batch=BLOCK, position=int(wanted[0]), shuffle=False)
    waiting: list[Tensor] = []
    done = 0
    for batch in stream:
        waiting += list(batch.image[torch.from_numpy(np.isin(batch.index.numpy(), wanted))])
        while len(waiting) >= BLOCK or (waiting and done + len(waiting) == len(wanted)):
            block = torch.stack(waiting[:BLOCK]).to(ranks.device).float() / 255  # (B, C, H, W)
            places = slice(start + done, start + done + len(block))
            yield places, torch.from_numpy(indices[places]), block
            done += len(block)
            waiting = waiting[BLOCK:]
        if done == len(wanted):
            return


def gathered(table: Tensor, ranks: Ranks) -> Tensor:
    """Puts together a table (N, ...) on the CPU of which each process filled its share and left zeros elsewhere.

    Adding zeros rounds nothing, so the result is the same to the last bit on any number of processes.
    """
    return ranks.sum_(table.to(ranks.device)).cpu()
