"""What every source offers to the build: a listing of keys per split, and the samples behind them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a source, with what is known about it."""

    image: NDArray[np.uint8] | bytes
    """Pixels, H x W x C, where the source holds arrays; else the encoded file."""
    extension: str = ""
    """Extension of the encoded file, lower case, without the dot."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Other members of the sample by extension: a class as "cls", attributes as "json"."""


class Source(Protocol):
    """A data set as its authors distribute it. Sent to worker processes, so it opens its files when first read."""

    name: str
    keys: Mapping[str, Sequence[str]]
    """WebDataset keys of each split, in source order."""

    def read(self, split: str, index: int) -> Sample:
        """The sample `index` of a split. Raises pixels.BadImage, saying why, where it is missing or unreadable."""

    def fingerprint(self) -> str:
        """A hash of what is listed, to tell a source that changed between two runs of a build."""


def fingerprint_of_keys(keys: Mapping[str, Sequence[str]]) -> str:
    """sha256 over the names of the splits and their keys."""
    digest = hashlib.sha256()
    for split, names in keys.items():
        digest.update(f"{split} {len(names)}\n".encode())
        for name in names:
            digest.update(name.encode() + b"\n")
    return digest.hexdigest()
