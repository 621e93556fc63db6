"""Image sets cut into blocks of fixed size, the unit that is divided among processes and parts.

The noise of a block comes from (seed, purpose, block), and a block goes through the networks by itself. So image i,
down to the last bit of its features, depends on (seed, i) only: not on batch size, processes or parts. The same holds
for measurements of a subset of a split's images, whose noise comes from (seed, purpose, index of the image).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.io.address import Location
from data_shards.io.errors import InputError
from data_shards.io.partition import partition
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from trainer.noise import seeded_generator
from trainer.process_group import Ranks

BLOCK = 64
"""Images in a block; the last block of a set may hold fewer. Noise is drawn for all BLOCK images in any case."""


def block_ids(block: int, n: int) -> torch.Tensor:
    """The ids of the images of a block of a set of `n`, int64."""
    return torch.arange(block * BLOCK, min((block + 1) * BLOCK, n))


def part_blocks(n: int, part: int, parts: int) -> range:
    """The blocks of part `part` of `parts` of a set of `n` images. Raises InputError where there is no such part."""
    if n < 1:
        raise InputError(f"{n} images; use at least 1", parameter="n")
    if not 0 <= part < parts:
        raise InputError(f"{part}/{parts} does not exist; parts are 0/{parts} to {parts - 1}/{parts}", parameter="part")
    return partition(-(-n // BLOCK), part, parts)


def blocks_of(n: int, ranks: Ranks, *, part: int = 0, parts: int = 1) -> range:
    """The blocks of a part of a set of `n` images that this process handles."""
    blocks = part_blocks(n, part, parts)
    mine = ranks.partition(len(blocks))
    return blocks[mine.start : mine.stop]


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
    shards: str | Path | Location, split: str, indices: np.ndarray, ranks: Ranks
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


def noise_in_parts(
    seed: int, indices: Iterable[int], num_samples: int, latent_dim: int, *, most: int
) -> Iterator[Tensor]:
    """The noise of `image_noise` in parts along its first axis, of `most` samples; the last has fewer than twice that.

    most: a multiple of 16, so that the parts are the same numbers: torch draws 16 at a time.
    """
    generators = [seeded_generator(seed, "posterior samples of an image", int(i)) for i in indices]
    parts = max(1, num_samples // most)
    for part in range(parts):
        count = most if part < parts - 1 else num_samples - most * (parts - 1)
        yield torch.stack([torch.randn(count, latent_dim, generator=g) for g in generators], dim=1)


def gathered(table: Tensor, ranks: Ranks) -> Tensor:
    """Puts together a table (N, ...) on the CPU of which each process filled its share and left zeros elsewhere.

    Adding zeros rounds nothing, so the result is the same to the last bit on any number of processes.
    """
    return ranks.sum_(table.to(ranks.device)).cpu()
