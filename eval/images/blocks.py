"""Image sets cut into blocks of fixed size, the unit that is divided among processes and parts.

The noise of a block comes from (seed, purpose, block), and a block goes through the networks by itself. So image i,
down to the last bit of its features, depends on (seed, i) only: not on batch size, processes or parts.
"""

import torch

from data_shards.io.errors import InputError
from data_shards.io.partition import partition
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
