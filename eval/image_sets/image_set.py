"""A set of images from anywhere: what a distance needs of it, and what was decided about its files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from data_shards.io.errors import InputError

ImageBlocks = Callable[[range], Iterator[tuple[Tensor, Tensor | Sequence[Tensor]]]]
"""A range of blocks to (ids (B,) int64, images) of each, in one or several pieces: images are (B, C, H, W) uint8, or a
sequence of (C, H, W) uint8 where their sizes differ. C is 1 (grey) or 3 (red, green, blue)."""


@dataclass(kw_only=True)
class Decisions:
    """What was done to the images that have been read so far."""

    conversions: Counter[str] = field(default_factory=Counter)
    """How many images something was done to, by what it was, in words."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Images that cannot be read, by name, and why."""

    def to_json(self) -> dict[str, Any]:
        """What `together` reads."""
        return {"conversions": dict(self.conversions), "unreadable": self.unreadable}

    @classmethod
    def together(cls, found: Iterable[Mapping[str, Any]]) -> "Decisions":
        """What was done to the images of several processes or parts, from the `to_json` of each."""
        whole = cls()
        for one in found:
            whole.conversions.update(one["conversions"])
            whole.unreadable |= one["unreadable"]
        return whole


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of which any block can be read by itself."""

    name: str
    """What the user called it."""
    n: int
    """Number of images."""
    images: ImageBlocks
    """Any block of the set."""
    identity: Mapping[str, Any]
    """What the images are, as JSON: digests of their content, or of what they are generated from."""
    names: Sequence[str] | None = None
    """What each image is called; None where they have numbers only."""
    notes: Sequence[str] = ()
    """What was found, and what was left out, a line each."""
    decisions: Decisions = field(default_factory=Decisions)
    """What was decided about the images that were read by this process."""


def chosen(n: int | None, available: int, seed: int, name: str) -> list[int]:
    """The indices of n of the `available` images of a set, increasing, by a seeded choice; all where n is None.

    Raises InputError where there are fewer.
    """
    if n is None or n == available:
        return list(range(available))
    if n > available:
        raise InputError(f"{n} images, but {name} has {available}; use at most {available}", parameter="n")
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(available, generator=generator)[:n].tolist())
