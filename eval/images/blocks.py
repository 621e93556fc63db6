"""Image sets cut into blocks of fixed size, the unit that processes and parts share out.

The noise of a block comes from (seed, purpose, block), and a block goes through the networks by itself. So image i,
down to the last bit of its features, depends on (seed, i) only: not on batch size, processes or parts.
"""

import torch

from data_shards.io.errors import InputError
from trainer.noise import derived_seed
from trainer.process_group import Ranks

BLOCK = 64
"""Images in a block; the last block of a set may hold fewer."""


def block_ids(block: int, n: int) -> torch.Tensor:
    """The ids of the images of a block of a set of `n`, int64."""
    return torch.arange(block * BLOCK, min((block + 1) * BLOCK, n))


def block_generator(seed: int, purpose: str, block: int) -> torch.Generator:
    """The source of a block's noise, on the CPU. Draw for all BLOCK images, then keep those that the set has."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, block))


def part_blocks(n: int, part: int, parts: int) -> range:
    """The blocks of part `part` of `parts` of a set of `n` images. Raises InputError where there is no such part."""
    if n < 1:
        raise InputError(f"--n: {n} images are asked for; use at least 1")
    if not 0 <= part < parts:
        raise InputError(f"--part: {part}/{parts} does not exist; parts are 0/{parts} to {parts - 1}/{parts}")
    blocks = -(-n // BLOCK)
    return range(blocks * part // parts, blocks * (part + 1) // parts)


def blocks_of(n: int, ranks: Ranks, *, part: int = 0, parts: int = 1) -> range:
    """The blocks of a part of a set of `n` images that this process handles."""
    blocks = part_blocks(n, part, parts)
    own = ranks.partition(len(blocks))
    return blocks[own.start : own.stop]
