"""Reads samples by their index: finds the shard, reads the bytes by one pread, checks them, decodes them.

Open shards and their indexes are kept for two windows and then forgotten, so memory is O(shards + window).

A sample that cannot be read - its shard is missing or truncated, its bytes do not have their checksum, it does not
decode - is replaced by another sample of the split, which depends on the bad one and the manifest alone. Every reader
of the sample, on any rank, gets the same replacement without communication. A lost shard is tried again later. Faults
of this machine, or a server that stays away, are no fault of the samples: they end the reading.
"""

import hashlib
import logging
import os
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_shards.checksum import Checksum
from data_shards.decoding.bad_image import BadImage
from data_shards.io.address import Unreachable
from data_shards.io.errors import InputError, MachineFault, raise_machine_fault
from data_shards.manifest import Manifest, Shard
from data_shards.shard_index import ShardIndex, parse_index
from data_shards.storage import ShardFiles

_MOST_REPLACEMENTS_TRIED = 100
_LOST_SECONDS = 60.0  # after which a lost shard is tried again; doubles each time

_log = logging.getLogger(__name__)


class BadSample(Exception):
    """A sample cannot be read; the message names the shard and the member and says why."""


@dataclass(frozen=True, kw_only=True)
class OpenShard:
    """A shard that is being read."""

    shard: Shard
    index: ShardIndex
    file: int
    """File descriptor of the tar."""
    offsets: list[int]
    """Where the pixels begin. Python integers, as in the next two lists, as they are faster to get than NumPy's."""
    sizes: list[int]
    """Bytes from there to the end of the member."""
    checksums: list[int]
    """As in the index."""
    checksum: Checksum
    """The function that they were computed with."""


@dataclass(frozen=True, kw_only=True)
class LostShard:
    """A shard that could not be opened."""

    reason: str
    """Why, in one line."""
    again: float
    """When it is tried again, in seconds of time.monotonic()."""
    seconds: float
    """Until then from when it was tried last."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """What was read."""

    pixels: NDArray[np.uint8]
    """Shape (B, C, H, W)."""
    samples: NDArray[np.int64]
    """Index within the split of each image, shape (B,): as requested, except where replaced."""
    faults: tuple[str, ...]
    """Why samples were replaced, one line each."""


class Reader:
    """Samples of one split by their index in source order."""

    def __init__(self, manifest: Manifest, split: str, files: ShardFiles) -> None:
        self._pixels = manifest.pixels
        self._identity = f"{manifest.hash}|{split}"
        self._shards = manifest.shards_of(split)
        counts = manifest.shard_counts(split)
        self._num_samples = int(counts.sum())
        self._starts = np.cumsum(counts) - counts  # (shards,), first sample of each shard
        self._files = files
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._lost: dict[int, LostShard] = {}
        self._renewed: set[int] = set()  # shards of which a damaged copy was discarded
        self._most_open = 2 * manifest.window + 1
        self._raw = manifest.pixels.encoding == "raw"
        self._header_bytes = manifest.pixels.header_bytes

    def close(self) -> None:
        """Closes all shards."""
        while self._open:
            os.close(self._open.popitem()[1].file)

    def read(self, samples: NDArray[np.int64]) -> Images:
        """The images of `samples`, shape (B,).

        Raises BadSample where no replacement for one can be found either, MachineFault where no sample is to blame.
        """
        shards = np.searchsorted(self._starts, samples, side="right") - 1  # (B,)
        rows = samples - self._starts[shards]  # (B,)
        read = self._read_raw if self._raw else self._read_encoded
        pixels, bad = read(shards.tolist(), rows.tolist())
        if not bad:
            return Images(pixels=pixels, samples=samples, faults=())
        samples = samples.copy()
        faults = []
        for place in bad:
            sample = int(samples[place])
            try:
                # A second try: a damaged copy in the cache is downloaded again.
                pixels[place] = self._read_one(sample)
            except BadSample as fault:
                samples[place], pixels[place] = self._replacement(sample)
                faults.append(f"{fault} (replaced by sample {samples[place]})")
                _log.warning("%s", faults[-1])
        return Images(pixels=pixels, samples=samples, faults=tuple(faults))

    def _replacement(self, sample: int) -> tuple[int, NDArray[np.uint8]]:
        for attempt in range(_MOST_REPLACEMENTS_TRIED):
            digest = hashlib.sha256(f"{self._identity}|{sample}|{attempt}".encode()).digest()
            other = int.from_bytes(digest[:8], "little") % self._num_samples
            try:
                return other, self._read_one(other)
            except BadSample as error:
                fault = error
        raise BadSample(f"{fault}; {_MOST_REPLACEMENTS_TRIED} replacements cannot be read either")

    def _read_one(self, sample: int) -> NDArray[np.uint8]:
        """One image, C x H x W, downloaded again if the cached copy is damaged. Raises BadSample."""
        number = int(np.searchsorted(self._starts, sample, side="right")) - 1
        row = sample - int(self._starts[number])
        try:
            return self._checked(self._shard(number), row)
        except BadSample:
            known = number in self._open and number not in self._renewed
            if not known or not self._files.discard(self._shards[number]):
                raise
        self._renewed.add(number)
        os.close(self._open.pop(number).file)
        return self._checked(self._shard(number), row)

    def _checked(self, shard: OpenShard, row: int) -> NDArray[np.uint8]:
        try:
            data = os.pread(shard.file, shard.sizes[row], shard.offsets[row])
        except OSError as error:
            raise_machine_fault(error, self._files.address_of(shard.shard))
            raise self._bad(shard, row, f"cannot be read ({error.strerror})") from error
        if shard.checksum(data) != shard.checksums[row]:
            raise self._bad(shard, row, "the bytes do not have their checksum; build the shards again")
        if self._raw:
            return np.frombuffer(data, np.uint8).reshape(self._pixels.shape)
        try:
            return self._pixels.decode_member(data)
        except BadImage as error:
            raise self._bad(shard, row, f"{error}; build the shards again") from error

    def _bad(self, shard: OpenShard, row: int, reason: str) -> BadSample:
        # The name is only formed for bad samples: for every image it would cost as much as the checksum.
        member = f"{shard.index.keys[row]}.{shard.index.extensions[row]}"
        return BadSample(f"{self._files.address_of(shard.shard)}, {member}: {reason}")

    def _read_raw(self, shards: list[int], rows: list[int]) -> tuple[NDArray[np.uint8], list[int]]:
        """Pixels (B, C, H, W), and the places in the batch that could not be read."""
        size = self._pixels.num_bytes
        pixels = np.empty(len(rows) * size, np.uint8)
        memory = pixels.data
        bad = []
        for place, (number, row) in enumerate(zip(shards, rows, strict=True)):
            image = memory[place * size : (place + 1) * size]
            try:
                shard = self._shard(number)
                os.preadv(shard.file, [image], shard.offsets[row])
                if shard.checksum(image) != shard.checksums[row]:
                    bad.append(place)
            except MachineFault:
                raise
            except (BadSample, OSError):
                bad.append(place)
        return pixels.reshape(len(rows), *self._pixels.shape), bad

    def _read_encoded(self, shards: list[int], rows: list[int]) -> tuple[NDArray[np.uint8], list[int]]:
        """The same for images that are decoded."""
        channels, height, width = self._pixels.shape
        # Decoders put the colours of a pixel side by side. So does the batch, for that is a copy without a shuffle.
        images = np.empty((len(rows), height, width, channels), np.uint8).transpose(0, 3, 1, 2)
        bad = []
        for place, (number, row) in enumerate(zip(shards, rows, strict=True)):
            try:
                images[place] = self._checked(self._shard(number), row)
            except BadSample:
                bad.append(place)
        return images, bad

    def _shard(self, number: int) -> OpenShard:
        if (known := self._open.get(number)) is not None:
            self._open.move_to_end(number)
            return known
        lost = self._lost.get(number)
        if lost is not None and time.monotonic() < lost.again:
            raise BadSample(lost.reason)
        try:
            opened = self._open_shard(self._shards[number])
        except BadSample as error:
            seconds = _LOST_SECONDS if lost is None else 2 * lost.seconds
            self._lost[number] = LostShard(reason=str(error), again=time.monotonic() + seconds, seconds=seconds)
            raise
        self._lost.pop(number, None)
        self._open[number] = opened
        if len(self._open) > self._most_open:
            os.close(self._open.popitem(last=False)[1].file)
        return opened

    def _open_shard(self, shard: Shard) -> OpenShard:
        address = self._files.address_of(shard)
        try:
            data = self._files.index(shard)
            index = parse_index(data, shard=address, sha256=shard.index_sha256)
            file = self._files.open(shard)
        except (Unreachable, InputError) as error:
            raise BadSample(str(error)) from error
        except OSError as error:
            raise_machine_fault(error, address)
            raise BadSample(
                f"{address}: cannot be opened ({error.strerror or error}); build the shards again"
            ) from error
        if (size := os.fstat(file).st_size) != shard.bytes:
            os.close(file)
            raise BadSample(f"{address}: {size} bytes where the manifest says {shard.bytes}; build the shards again")
        offsets, sizes = index.offsets + self._header_bytes, index.sizes - self._header_bytes
        return OpenShard(
            shard=shard,
            index=index,
            file=file,
            offsets=offsets.tolist(),
            sizes=sizes.tolist(),
            checksums=index.checksums.tolist(),
            checksum=index.checksum,
        )
