"""The checksums of samples, by the format number of the index that holds them.

Raw pixels never fail to decode, so a flipped bit would pass unnoticed. The stream checks the checksum of each sample as
it reads. That finds accidents; it is no defence against an adversary, the sha256 of the manifest is.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
import xxhash
from numpy.typing import NDArray

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
