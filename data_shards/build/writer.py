"""Writes one shard: a plain WebDataset tar, and beside it the JSON with its index, which is written last.

The same samples give the same bytes on any machine and at any time.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_shards.decoding.bad_image import BadImage
from data_shards.io import atomic
from data_shards.io.disk import sha256_of_file
from data_shards.manifest import FORMAT, Shard, ShardIndex, Skipped, xxh3
from data_shards.pixels import Pixels, npy_header
from data_shards.sources.source import Sample, Source

_TAR_BLOCK = 512
_TAR_END = bytes(2 * _TAR_BLOCK)


@dataclass(frozen=True, kw_only=True)
class ShardRange:
    """The samples of the source that go into one shard."""

    name: str
    """File name of the tar."""
    split: str
    """Split of the source."""
    start: int
    """First sample, counted within the split."""
    stop: int
    """One past the last sample."""

    @property
    def index_name(self) -> str:
        """File name of the index."""
        return self.name.removesuffix(".tar") + ".json"


@dataclass(frozen=True, kw_only=True)
class Written:
    """The result of writing one shard."""

    shard: Shard | None
    """None where no sample of the range was usable."""
    skipped: tuple[Skipped, ...]
    """Unusable samples."""


class _Tar:
    """Appends members to a file and remembers size and sha256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self.sha256 = file, 0, hashlib.sha256()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)

    def add(self, name: str, data: bytes) -> int:
        """Appends a member; returns where its data begins."""
        # In POSIX pax form, which for short ASCII names is plain ustar. No time, no user, no machine: the same bytes.
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(data), 0o644
        self._write(header.tobuf(tarfile.PAX_FORMAT))
        offset = self.size
        self._write(data + bytes(-len(data) % _TAR_BLOCK))
        return offset

    def finish(self) -> None:
        self._write(_TAR_END)


class _Columns:
    """The index as it grows."""

    def __init__(self, pixels: Pixels) -> None:
        self._raw_header = len(npy_header(pixels.shape)) if pixels.encoding == "raw" else 0
        self._rows: list[tuple[str, str, int, int, int]] = []
        self.pixel_sum = np.zeros(pixels.channels, np.int64)
        self.pixel_square_sum = np.zeros(pixels.channels, np.int64)

    def add(self, key: str, extension: str, offset: int, data: bytes, image: np.ndarray) -> None:
        self._rows.append((key, extension, offset, len(data), xxh3(data[self._raw_header :])))
        wide = image.astype(np.int64)
        self.pixel_sum += wide.sum((1, 2))  # (C,)
        self.pixel_square_sum += (wide * wide).sum((1, 2))

    def index(self) -> ShardIndex:
        keys, extensions, offsets, sizes, checksums = zip(*self._rows, strict=True)
        return ShardIndex(
            keys=keys,
            extensions=extensions,
            offsets=np.array(offsets, np.int64),
            sizes=np.array(sizes, np.int64),
            checksums=np.array(checksums, np.uint64),
        )

    def __len__(self) -> int:
        return len(self._rows)


def ensure_shard(folder: Path, source: Source, pixels: Pixels, piece: ShardRange) -> Written:
    """Writes the shard unless a former run has written it whole."""
    return is_done(folder, piece) or write_shard(folder, source, pixels, piece)


def write_shard(folder: Path, source: Source, pixels: Pixels, piece: ShardRange) -> Written:
    """Writes the tar and then the index of one shard into `folder`."""
    skipped: list[Skipped] = []
    columns = _Columns(pixels)
    with atomic.replacing(folder / piece.name) as file:
        tar = _Tar(file)
        for key, sample, outcome in _encoded(piece, source, pixels):
            if isinstance(outcome, BadImage) or sample is None:
                skipped.append(Skipped(key=key, split=piece.split, reason=str(outcome)))
                continue
            image, extension, data = outcome
            columns.add(key, extension, tar.add(f"{key}.{extension}", data), data, image)
            for name, content in sample.extras.items():
                tar.add(f"{key}.{name}", content)
        tar.finish()
    record: dict[str, Any] = {
        "format": FORMAT,
        "skipped": [asdict(entry) for entry in skipped],
        "tar": None,
        "members": None,
    }
    if len(columns):
        record["tar"] = {
            "count": len(columns),
            "bytes": tar.size,
            "sha256": tar.sha256.hexdigest(),
            "pixel_sum": columns.pixel_sum.tolist(),
            "pixel_square_sum": columns.pixel_square_sum.tolist(),
        }
        record |= columns.index().to_json()
    atomic.write_bytes(folder / piece.index_name, json.dumps(record).encode())
    written = read_written(folder, piece)
    assert written is not None
    return written


def _encoded(
    piece: ShardRange, source: Source, pixels: Pixels
) -> Iterator[tuple[str, Sample | None, BadImage | tuple[np.ndarray, str, bytes]]]:
    """Key, sample, and either what is wrong with it or (image C x H x W, extension, bytes of the member)."""
    for place in range(piece.start, piece.stop):
        key = source.keys[piece.split][place]
        try:
            sample = source.read(piece.split, place)
            image = pixels.prepare(sample.image).image
            if pixels.encoding == "original" and isinstance(sample.image, bytes):
                yield key, sample, (image, sample.extension, sample.image)
            else:
                yield key, sample, (image, *pixels.encode_member(image))
        except BadImage as error:
            yield key, None, error


def read_written(folder: Path, piece: ShardRange) -> Written | None:
    """The result of a former run, or None where the index is missing or damaged. The tar is not read."""
    try:
        data = (folder / piece.index_name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        skipped = tuple(Skipped(**entry) for entry in record["skipped"])
    except (ValueError, KeyError, TypeError):
        return None  # damaged since; the shard is written again
    if record["tar"] is None:
        return Written(shard=None, skipped=skipped)
    tar = record["tar"]
    shard = Shard(
        name=piece.name,
        split=piece.split,
        count=tar["count"],
        bytes=tar["bytes"],
        sha256=tar["sha256"],
        index_sha256=hashlib.sha256(data).hexdigest(),
        pixel_sum=tuple(tar["pixel_sum"]),
        pixel_square_sum=tuple(tar["pixel_square_sum"]),
    )
    return Written(shard=shard, skipped=skipped)


def is_done(folder: Path, piece: ShardRange) -> Written | None:
    """The result of a former run, if the tar is there too and has its sha256; else None."""
    written = read_written(folder, piece)
    if written is None or written.shard is None:
        return written
    tar = folder / piece.name
    if not tar.is_file() or tar.stat().st_size != written.shard.bytes:
        return None
    return written if sha256_of_file(tar) == written.shard.sha256 else None
