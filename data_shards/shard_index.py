"""The index of one shard: where the image of each sample lies inside the tar, and its checksum.

It is one small JSON file beside the tar, read when the shard is first needed and forgotten when it is not.

Raw pixels never fail to decode, so a flipped bit would pass unnoticed. The checksum of a sample, which the stream
checks as it reads, finds accidents; it is no defence against an adversary, the sha256 of the manifest is.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.io.errors import InputError
from data_shards.pixels import IMAGE_EXTENSIONS

FORMAT = 2
"""The format that is written; indexes of format 1 have no number and another checksum (see `CHECKSUMS`)."""

Checksum = Callable[[bytes | memoryview], int]
"""The bytes of one sample to 64 bits."""

_WORD = 8  # bytes
_GOLDEN = 0x9E3779B97F4A7C15


def weighted_sum(data: bytes | memoryview) -> int:
    """The checksum of format 1, kept for shards that were built with it.

    The sum of the 64-bit little-endian words, each times a fixed odd weight of its place, modulo 2^64; zeros fill the
    last word.
    """
    words = len(data) // _WORD
    whole = int(np.einsum("w,w->", np.frombuffer(data, "<u8", count=words), _weights(words)))
    last = int.from_bytes(data[words * _WORD :], "little") * ((words + 1) * _GOLDEN | 1)
    return (whole + last) % 2**64


def _weights(words: int) -> NDArray[np.uint64]:
    # Encoded members differ in size from one to the next, so weights are kept by powers of two.
    return _weights_up_to(words.bit_length())[:words]


@functools.lru_cache(maxsize=32)
def _weights_up_to(power: int) -> NDArray[np.uint64]:
    # Multiples of 2^64 / golden ratio are spread over the whole range; the last bit makes them odd.
    places = np.arange(1, 2**power + 1, dtype=np.uint64)
    return (places * np.uint64(_GOLDEN)) | np.uint64(1)  # modulo 2^64


xxh3: Checksum = xxhash.xxh3_64_intdigest
"""The checksum of format 2, which is written today."""

CHECKSUMS: Mapping[int, Checksum] = {1: weighted_sum, 2: xxh3}
"""The checksum of the samples by the format number of their index."""


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
    """`checksum` of the pixels (raw) or of the whole image member (encoded); shape (n,)."""
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
        if unsafe := set(extensions) - IMAGE_EXTENSIONS:
            raise InputError(f"{shard}: members .{', .'.join(sorted(unsafe))} are refused; images only")
        index = cls(
            keys=keys,
            extensions=extensions,
            offsets=np.array(members["offset"], np.int64),
            sizes=np.array(members["size"], np.int64),
            checksums=np.array(members["checksum"], np.uint64),
            format=number,
        )
        if not len(extensions) == len(index.offsets) == len(index.sizes) == len(index.checksums) == len(keys):
            raise InputError(f"{shard}: its index is damaged, the columns differ in length; build the shards again")
        return index


def parse(data: bytes, *, shard: str, sha256: str) -> ShardIndex:
    """The index in the bytes of a shard's JSON file, which must have the sha256 that the manifest names."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{shard}: its index does not have the sha256 of the manifest; build the shards again")
    return ShardIndex.from_json(json.loads(data), shard=shard)
