"""Reads samples by their index: finds the shard, takes the bytes by one pread, checks them, decodes them.

Open shards and their indexes are kept for two windows and then forgotten, so memory is O(shards + window).
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards import checksum, shard_index
from data_shards.address import Address
from data_shards.errors import InputError
from data_shards.manifest import Manifest, Shard
from data_shards.pixels import BadImage, npy_header
from data_shards.shard_index import ShardIndex


class BadSample(Exception):
    """A sample cannot be had; the message names the shard and the member and says why."""


@dataclass(frozen=True)
class OpenShard:
    """A shard that is being read."""

    shard: Shard
    index: ShardIndex
    file: int
    """File descriptor of the tar."""
    offsets: list[int]
    """`index.offsets` as Python integers, which are quicker to get one by one."""


class Reader:
    """Samples of one split by their index in source order."""

    def __init__(self, manifest: Manifest, split: str, folder: Address) -> None:
        self._pixels = manifest.pixels
        self._shards = manifest.shards_of(split)
        counts = manifest.shard_counts(split)
        self._starts = np.cumsum(counts) - counts  # (shards,), first sample of each shard
        self._folder = folder
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._most_open = 2 * manifest.window + 1
        self._skip = len(npy_header(manifest.image_shape)) if manifest.pixels.encoding == "raw" else 0

    def close(self) -> None:
        """Closes all shards."""
        while self._open:
            os.close(self._open.popitem()[1].file)

    def _shard(self, number: int) -> OpenShard:
        if (known := self._open.get(number)) is not None:
            self._open.move_to_end(number)
            return known
        opened = self._open_shard(self._shards[number])
        self._open[number] = opened
        if len(self._open) > self._most_open:
            os.close(self._open.popitem(last=False)[1].file)
        return opened

    def _open_shard(self, shard: Shard) -> OpenShard:
        path = Path(self._folder.of(shard.name))
        try:
            data = self._folder.read_bytes(shard.index_name)
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BadSample(f"{path}: cannot be opened ({error.strerror}); build the shards again") from error
        if (size := os.fstat(file).st_size) != shard.bytes:
            os.close(file)
            raise BadSample(f"{path}: {size} bytes where the manifest says {shard.bytes}; build the shards again")
        try:
            index = shard_index.parse(data, shard=str(path), sha256=shard.index_sha256)
        except InputError as error:
            os.close(file)
            raise BadSample(str(error)) from error
        return OpenShard(shard, index, file, (index.offsets + self._skip).tolist())

    def read(self, samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of the samples, uint8, shape (B, C, H, W). Raises BadSample for the first that cannot be had."""
        shards = np.searchsorted(self._starts, samples, side="right") - 1  # (B,)
        rows = samples - self._starts[shards]  # (B,)
        if self._pixels.encoding == "raw":
            return self._read_raw(shards, rows)
        return self._read_encoded(shards, rows)

    def _read_raw(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        size = self._pixels.num_bytes
        stride = checksum.padded(size)
        pixels = np.zeros((len(rows), stride), np.uint8) if stride != size else np.empty((len(rows), size), np.uint8)
        memory = pixels.reshape(-1).data
        expected = np.empty(len(rows), np.uint64)
        place = 0
        for place, (number, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            shard = self._open.get(number) or self._shard(number)
            start = place * stride
            os.preadv(shard.file, [memory[start : start + size]], shard.offsets[row])
            expected[place] = shard.index.checksums[row]
        wrong = np.flatnonzero(checksum.of_rows(pixels) != expected)
        if len(wrong):
            raise BadSample(self._name(shards, rows, int(wrong[0])) + ": the pixels do not have their checksum")
        return pixels[:, :size].reshape(len(rows), *self._pixels.shape)

    def _read_encoded(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self._pixels.shape), np.uint8)
        for place, (number, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            shard = self._shard(number)
            data = os.pread(shard.file, int(shard.index.sizes[row]), shard.offsets[row])
            if checksum.of_bytes(data) != shard.index.checksums[row]:
                raise BadSample(self._name(shards, rows, place) + ": the bytes do not have their checksum")
            try:
                images[place] = self._pixels.decode_member(data)
            except BadImage as error:
                raise BadSample(f"{self._name(shards, rows, place)}: {error}") from error
        return images

    def _name(self, shards: NDArray[np.int64], rows: NDArray[np.int64], place: int) -> str:
        shard = self._shard(int(shards[place]))
        row = int(rows[place])
        return f"{self._folder.of(shard.shard.name)}, member {shard.index.keys[row]}.{shard.index.extensions[row]}"
