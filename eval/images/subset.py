"""Which images of a split are measured, which process measures which of them, and with what noise."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from eval.images.blocks import BLOCK, blocks_of
from trainer.noise import seeded_generator
from trainer.process_group import Ranks


def evenly_spaced(count: int, total: int) -> np.ndarray:
    """`count` of the indices 0 ... total - 1, equally far apart, so that no stretch of the data set is left out.

    MNIST's test set, for one, is easier in its first half. Returns (count,), int64, increasing.
    """
    return np.arange(count, dtype=np.int64) * total // count


def subset_indices(manifest: Manifest, split: str, count: int) -> np.ndarray:
    """The indices of the `count` images of `split` that are measured, (count,).

    Raises InputError for a split that does not exist, or one with fewer images.
    """
    if split not in manifest.splits:
        raise InputError(f"{split!r} is not in the shards; use one of {', '.join(manifest.splits)}", parameter="split")
    total = manifest.num_samples(split)
    if not 1 <= count <= total:
        raise InputError(f"{count} images, but split {split} has {total}; use 1 to {total}", parameter="images")
    return evenly_spaced(count, total)


def own_places(count: int, ranks: Ranks) -> range:
    """This process's places among `count` images, in whole blocks; those of all processes tile them."""
    blocks = blocks_of(count, ranks)
    return range(min(blocks.start * BLOCK, count), min(blocks.stop * BLOCK, count))


def subset_blocks(
    shards: str | Path, split: str, indices: np.ndarray, ranks: Ranks
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """This process's share of the images `indices`, block by block.

    indices: (N,), increasing, within the split. Yields (the block's places in `indices`, its indices (B,), its images
    (B, C, H, W) as float32 in [0, 1] on the process's device).
    """
    mine = own_places(len(indices), ranks)
    if not mine:
        return
    wanted = indices[mine.start : mine.stop]
    stream = ShardStream(shards, split=split, global_batch=BLOCK, position=int(wanted[0]), shuffle=False)
    waiting: list[Tensor] = []
    done = 0
    for batch in stream:
        waiting += list(batch.image[torch.from_numpy(np.isin(batch.index.numpy(), wanted))])
        while len(waiting) >= BLOCK or (waiting and done + len(waiting) == len(wanted)):
            block = torch.stack(waiting[:BLOCK]).to(ranks.device).float() / 255  # (B, C, H, W)
            places = slice(mine.start + done, mine.start + done + len(block))
            yield places, torch.from_numpy(indices[places]), block
            done += len(block)
            waiting = waiting[BLOCK:]
        if done == len(wanted):
            return


def image_noise(seed: int, indices: Iterable[int], num_samples: int, latent_dim: int) -> Tensor:
    """Standard normal noise for the images `indices`, (K, B, D); image i's is a function of (seed, i) alone."""
    generators = [seeded_generator(seed, "posterior samples of an image", int(i)) for i in indices]
    return torch.stack([torch.randn(num_samples, latent_dim, generator=g) for g in generators], dim=1)


def gathered(table: Tensor, ranks: Ranks) -> Tensor:
    """Puts together a table (N, ...) on the CPU of which each process filled its share and left zeros elsewhere.

    Adding zeros rounds nothing, so the result is the same to the last bit on any number of processes.
    """
    return ranks.sum_(table.to(ranks.device)).cpu()
