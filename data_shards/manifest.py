"""The manifest: one JSON file that describes a folder of shards.

It names each shard with its bytes, sha256 and count, and how the pixels were made. Where each sample lies inside a tar
is in the index beside the tar (`shard_index.py`), so that the manifest stays at about 300 bytes a shard.
"""

import functools
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.io.address import Address, Damaged, Location, Refused, Unreachable
from data_shards.io.errors import InputError
from data_shards.io.patience import Patience
from data_shards.pixels import Pixels

FILE = "manifest.json"
FORMAT = 2
"""The format of manifests and indexes that is written. In format 1 the indexes have no number and another checksum (see
`checksum.py`); it is still read."""
DEFAULT_WINDOW = 32

_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+\.tar")
_OPTIONAL = ("converted", "left_out", "build")  # entries that manifests of earlier versions do not have
_SHA256 = re.compile(r"[0-9a-f]{64}")


def index_name(tar: str) -> str:
    """File name of the index of the shard with the file name `tar`."""
    return tar.removesuffix(".tar") + ".json"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file."""

    name: str
    """File name, such as train-000000.tar; the index is beside it with .json in place of .tar."""
    split: str
    """Split that all its samples belong to."""
    count: int
    """Samples."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Of the tar, hexadecimal."""
    index_sha256: str
    """Of the index file, hexadecimal."""
    pixel_sum: tuple[int, ...]
    """Sum of the pixels (0..255) per channel."""
    pixel_square_sum: tuple[int, ...]
    """Sum of the squared pixels per channel."""

    def __post_init__(self) -> None:
        # Names become paths, URLs and, where allowed, words of a shell command.
        if not _SHARD_NAME.fullmatch(self.name):
            raise InputError(f"shard name {self.name!r}: only letters, digits, - and _ before .tar are allowed")
        if not (_SHA256.fullmatch(self.sha256) and _SHA256.fullmatch(self.index_sha256)):
            raise InputError(f"{self.name}: sha256 must be 64 hexadecimal digits")
        if self.count < 1 or self.bytes < 1:
            raise InputError(f"{self.name}: count and bytes must be positive")

    @property
    def index_name(self) -> str:
        """File name of the index."""
        return index_name(self.name)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A source image that was left out as unusable."""

    key: str
    """Its key in the source."""
    split: str
    """Its split."""
    reason: str
    """What is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A folder of shards: its splits, its shards and how the pixels were made. `load` reads it."""

    name: str
    """Name of the data set."""
    pixels: Pixels
    """How the images were made and are kept."""
    splits: tuple[str, ...]
    """Names of the splits, in the order of the source."""
    shards: tuple[Shard, ...]
    """All shards, split after split, in source order."""
    window: int = DEFAULT_WINDOW
    """Shards in one shuffling window; see `order.py`."""
    skipped: tuple[Skipped, ...] = ()
    """Source images that were left out as unusable."""
    converted: Mapping[str, int] = field(default_factory=dict)
    """How many images were changed on their way to pixels, by what was done, in words."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many files of the source were not taken for images, by reason."""
    build: Mapping[str, Any] = field(default_factory=dict)
    """`source`: digest of the keys and bytes of the source's images; `division`: what decides the split of an image;
    `decodings`: versions of the decoder that made the shards, where manifests of earlier versions have none."""

    @classmethod
    def load(cls, place: str | Path | Location) -> "Manifest":
        """Reads the manifest of the shard folder at `place`, with or without /manifest.json.

        A server that fails is waited for as the location says. Raises InputError where there is no manifest or it is
        damaged, MachineFault where the server did not come back.
        """
        folder = Address(place)

        def read(quiet_seconds: float) -> Any:
            try:
                return json.loads(folder.read_bytes(FILE, quiet_seconds=quiet_seconds))
            except InputError:
                raise
            except ValueError as error:
                reason = f"{folder.of(FILE)}: damaged ({error}); build the shards again"
                raise InputError(reason) if folder.local is not None else Damaged(reason) from error

        try:
            patience = Patience(folder.location.patience_seconds)
            content = patience.wait_out(read, final=(FileNotFoundError, Refused))
        except FileNotFoundError as error:
            raise InputError(f"{folder.text}: no {FILE} there; make it by `python -m data_shards build`") from error
        except Unreachable as error:
            raise InputError(str(error)) from error
        try:
            return cls.from_json(content)
        except InputError as error:
            raise InputError(f"{folder.of(FILE)}: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{folder.of(FILE)}: damaged ({error}); build the shards again") from error

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Manifest":
        """The inverse of `to_json`; checks that the hash is that of the content."""
        if record["format"] not in range(1, FORMAT + 1):
            raise InputError(f"format {record['format']} is unknown to this version, which reads 1 to {FORMAT}")
        manifest = cls(
            name=record["name"],
            pixels=Pixels.from_json(record["pixels"]),
            splits=tuple(record["splits"]),
            shards=tuple(
                Shard(
                    **{
                        **shard,
                        "pixel_sum": tuple(shard["pixel_sum"]),
                        "pixel_square_sum": tuple(shard["pixel_square_sum"]),
                    }
                )
                for shard in record["shards"]
            ),
            window=record["window"],
            skipped=tuple(Skipped(**entry) for entry in record["skipped"]),
            **{name: record[name] for name in _OPTIONAL if name in record},
        )
        if record["hash"] != manifest.hash:
            raise InputError(f"{FILE}: its hash does not fit its content; build the shards again")
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return {
            "format": FORMAT,
            "name": self.name,
            "hash": self.hash,
            "pixels": self.pixels.to_json(),
            "splits": list(self.splits),
            "window": self.window,
            "skipped": [asdict(entry) for entry in self.skipped],
            **{name: getattr(self, name) for name in _OPTIONAL if getattr(self, name)},
            "shards": [asdict(shard) for shard in self.shards],
        }

    @functools.cached_property
    def hash(self) -> str:
        """sha256, hexadecimal, of what determines the samples and their order: no paths, no times, no checksums.

        The order of samples and the noise of training depend on it, so it is the same for all formats.
        """
        content = {
            "pixels": self.pixels.to_json(),
            "window": self.window,
            "splits": self.splits,
            "shards": [[shard.name, shard.split, shard.count, shard.sha256] for shard in self.shards],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.pixels.shape

    def lacks(self, split: str, address: str | Path) -> str:
        """The line for a user whose shards at `address` have no images of `split`, with the command that makes them."""
        line = f"{address} has no split {split!r}; it has {', '.join(self.splits)}"
        if split in ("valid", "test") and "train" in self.splits:
            folder = Address(Location(address=os.fspath(address), allow_pipe=True)).local
            place = "FOLDER" if folder is None else str(folder)
            command = shlex.join(["python", "-m", "data_shards", "split", place, f"--{split}", "5%"])
            line += (
                f"; `{command}` makes it{', where the folder lies' if folder is None else ''}, without building again"
            )
        return line

    def shards_of(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split, in source order. Raises InputError, naming the known ones, for another split."""
        if split not in self.splits:
            raise InputError(f"{split!r} is not in the shards; use one of {', '.join(self.splits)}", parameter="split")
        return tuple(shard for shard in self.shards if shard.split == split)

    def shard_counts(self, split: str) -> NDArray[np.int64]:
        """Samples in each shard of a split, source order; shape (shards,)."""
        return np.array([shard.count for shard in self.shards_of(split)], np.int64)

    def num_samples(self, split: str) -> int:
        """Samples in a split."""
        return sum(shard.count for shard in self.shards_of(split))
