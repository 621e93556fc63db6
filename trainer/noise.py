"""Noise that belongs to the sample, not to the process that draws it (contract 3 of the design).

The noise of a global batch is a function of (seed, purpose, position) alone. Every process draws all of it, which is
little (B x D numbers), and keeps its slice; so training is the same on any number of processes.
"""

import hashlib

import torch
from torch import Tensor


def derived_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed that depends on all of its arguments and is unrelated for neighbouring ones."""
    text = "/".join(map(str, (seed, purpose, *counters)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded_generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator whose stream is a function of (seed, purpose, counters) alone."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *counters))


def global_noise(seed: int, purpose: str, position: int, count: int, width: int) -> Tensor:
    """Standard normal noise (count, width) on the CPU for the global batch that starts at `position`."""
    return torch.randn(count, width, generator=seeded_generator(seed, purpose, position))
