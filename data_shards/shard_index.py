"""The index of a shard: where the image of each sample lies inside the tar, its checksum, and its class.

A small JSON file beside the tar. It is read when its shard is first needed and forgotten when it is not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.checksum import CHECKSUMS, Checksum
from data_shards.decoding.formats import member_extensions
from data_shards.io.errors import InputError
from data_shards.manifest import FORMAT


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Row i is the i-th sample of the shard."""

    keys: tuple[str, ...]
    """WebDataset key of each sample."""
    extensions: tuple[str, ...]
    """Extension of each sample's image member, without the dot."""
    offsets: NDArray[np.int64]
    """Where the image member's data begins, in bytes from the start of the tar; shape (n,)."""
    sizes: NDArray[np.int64]
    """Bytes of the image member; shape (n,)."""
    checksums: NDArray[np.uint64]
    """`checksum` of the pixels (raw), or of the whole image member (encoded); shape (n,)."""
    labels: tuple[str, ...] | None = None
    """Name of each sample's class, for instance its folder; None where no class is known."""
    format: int = FORMAT
    """1 or 2."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def checksum(self) -> Checksum:
        """The function that `checksums` were computed with."""
        return CHECKSUMS[self.format]

    def to_json(self) -> dict[str, Any]:
        """The entries `format` and `members` of the JSON file. An extension that all samples share is written once."""
        distinct = set(self.extensions)
        return {
            "format": self.format,
            "members": {
                "keys": list(self.keys),
                "extension": distinct.pop() if len(distinct) == 1 else list(self.extensions),
                "offset": self.offsets.tolist(),
                "size": self.sizes.tolist(),
                "checksum": self.checksums.tolist(),
                **({"label": list(self.labels)} if self.labels is not None else {}),
            },
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, shard: str) -> "ShardIndex":
        """The inverse of `to_json`. Raises InputError, naming `shard`, where the record is wrong."""
        number, members = record.get("format", 1), record["members"]
        if number not in CHECKSUMS:
            raise InputError(f"{shard}: its index has format {number}; this version reads 1 to {FORMAT}")
        keys = tuple(members["keys"])
        extension = members["extension"]
        extensions = (extension,) * len(keys) if isinstance(extension, str) else tuple(extension)
        if unsafe := set(extensions) - member_extensions():
            raise InputError(f"{shard}: members .{', .'.join(sorted(unsafe))} are refused; images only")
        index = cls(
            keys=keys,
            extensions=extensions,
            offsets=np.array(members["offset"], np.int64),
            sizes=np.array(members["size"], np.int64),
            checksums=np.array(members["checksum"], np.uint64),
            labels=tuple(members["label"]) if "label" in members else None,
            format=number,
        )
        if not len(extensions) == len(index.offsets) == len(index.sizes) == len(index.checksums) == len(keys):
            raise InputError(f"{shard}: its index is damaged, the columns differ in length; build the shards again")
        return index


def parse_index(data: bytes, *, shard: str, sha256: str) -> ShardIndex:
    """The index in the bytes of a shard's JSON file, which must have the sha256 that the manifest names."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{shard}: its index does not have the sha256 of the manifest; build the shards again")
    return ShardIndex.from_json(json.loads(data), shard=shard)
