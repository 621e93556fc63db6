"""What each shard was made from, by which a build knows whether the source is still the same.

One small file a shard, in the folder .build beside the shards. They are for the build alone: whoever reads shards needs
none of them, and they depend on times, which the shards do not.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards.io import atomic
from data_shards.io.regular_files import read_regular

FOLDER = ".build"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What one shard was made from: a row for each image of the source, those that were unusable too."""

    index_sha256: str
    """Of the shard's index, hexadecimal: the record is that of this index."""
    keys: NDArray[np.uint64]
    """`key_hash` of each image."""
    stamps: NDArray[np.uint64]
    """By which a change is suspected; see `Source.stamps`."""
    contents: NDArray[np.uint64]
    """By which it is known; see `content_of`."""

    def write(self, folder: Path, shard: str) -> None:
        """Into the record of the tar `shard` in `folder`."""
        path = path_of(folder, shard)
        path.parent.mkdir(exist_ok=True)
        content = {
            "index_sha256": self.index_sha256,
            **{name: getattr(self, name).tobytes().hex() for name in _COLUMNS},
        }
        atomic.write_bytes(path, json.dumps(content).encode())


_COLUMNS = ("keys", "stamps", "contents")


def path_of(folder: Path, shard: str) -> Path:
    """The record of the tar `shard`."""
    return folder / FOLDER / f"{shard.removesuffix('.tar')}.json"


def read_record(folder: Path, shard: str) -> ShardRecord | None:
    """None where there is none, or it is damaged."""
    try:
        content = json.loads(read_regular(path_of(folder, shard)))
        columns = {name: np.frombuffer(bytes.fromhex(content[name]), np.uint64) for name in _COLUMNS}
        record = ShardRecord(index_sha256=content["index_sha256"], **columns)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return record if len({len(column) for column in columns.values()}) == 1 else None


def recorded_shards(folder: Path) -> Iterator[str]:
    """The tars of which there are records."""
    return (f"{path.stem}.tar" for path in sorted((folder / FOLDER).glob("*-[0-9]*.json")))
