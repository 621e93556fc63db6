"""Writes one shard: a plain WebDataset tar, and beside it the JSON with its index, which is written last.

The same samples give the same bytes on any machine and at any time.
"""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_shards.build.layout import ShardTask
from data_shards.build.record import ShardRecord
from data_shards.checksum import xxh3
from data_shards.decoding.bad_image import BadImage
from data_shards.io import atomic
from data_shards.io.errors import machine_faults
from data_shards.manifest import FORMAT, Shard, Skipped
from data_shards.pixels import Pixels
from data_shards.shard_index import ShardIndex
from data_shards.sources.source import Sample, content_of, content_of_bad

_TAR_BLOCK = 512
_TAR_END = bytes(2 * _TAR_BLOCK)


@dataclass(frozen=True, kw_only=True)
class Written:
    """The result of writing one shard."""

    shard: Shard | None
    """None where no sample of the range was usable."""
    skipped: tuple[Skipped, ...]
    """Unusable samples."""
    converted: Mapping[str, int]
    """How many images were changed in which way on their way to pixels, in the words of the decoder."""


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
        self._header_bytes = pixels.header_bytes
        self._rows: list[tuple[str, str, int, int, int, str]] = []
        self.pixel_sum = np.zeros(pixels.channels, np.int64)
        self.pixel_square_sum = np.zeros(pixels.channels, np.int64)

    def add(self, key: str, label: str, offset: int, member: "Member") -> None:
        checksum = xxh3(member.data[self._header_bytes :])
        self._rows.append((key, member.extension, offset, len(member.data), checksum, label))
        wide = member.image.astype(np.int64)
        self.pixel_sum += wide.sum((1, 2))  # (C,)
        self.pixel_square_sum += (wide * wide).sum((1, 2))

    def index(self) -> ShardIndex:
        keys, extensions, offsets, sizes, checksums, labels = zip(*self._rows, strict=True)
        return ShardIndex(
            keys=keys,
            extensions=extensions,
            offsets=np.array(offsets, np.int64),
            sizes=np.array(sizes, np.int64),
            checksums=np.array(checksums, np.uint64),
            labels=labels if any(labels) else None,
        )

    def __len__(self) -> int:
        return len(self._rows)


@dataclass(frozen=True, kw_only=True)
class Member:
    """The image member of a sample."""

    extension: str
    """Of its file, without the dot."""
    data: bytes
    """Content of the file."""
    image: np.ndarray
    """What the stream will give, C x H x W."""
    conversions: tuple[str, ...] = ()
    """What was done to the image of the source, in the words of the decoder."""


def encoded_member(sample: Sample, pixels: Pixels) -> Member:
    """The member for an image of a source. Raises BadImage."""
    prepared = pixels.prepare(sample.image)
    if pixels.encoding == "original" and isinstance(sample.image, bytes):
        extension, data = sample.extension, sample.image
    else:
        extension, data = pixels.encode_member(prepared.image)
    # After a lossy encoding other pixels are streamed than were encoded.
    image = pixels.decode_member(data) if pixels.encoding == "jpeg" else prepared.image
    return Member(extension=extension, data=data, image=image, conversions=prepared.conversions)


def write_shard(
    folder: Path,
    task: ShardTask,
    pixels: Pixels,
    member_of: Callable[[Sample, Pixels], Member] = encoded_member,
) -> Written:
    """Writes the tar, then the index, and then the record of one shard into `folder`."""
    skipped: list[Skipped] = []
    converted: Counter[str] = Counter()
    contents: list[int] = []
    columns = _Columns(pixels)
    with machine_faults(folder / task.name), atomic.replacing(folder / task.name) as file:
        tar = _Tar(file)
        for place, key in enumerate(task.keys):
            try:
                sample = task.read(place)
                contents.append(content_of(sample))
                member = member_of(sample, pixels)
            except BadImage as error:
                if len(contents) == place:
                    contents.append(content_of_bad(error))
                skipped.append(Skipped(key=key, split=task.split, reason=str(error)))
                continue
            converted.update(member.conversions)
            offset = tar.add(f"{key}.{member.extension}", member.data)
            columns.add(key, sample.label, offset, member)
            for name, content in sample.extras.items():
                tar.add(f"{key}.{name}", content)
        tar.finish()
    record: dict[str, Any] = {
        "format": FORMAT,
        "skipped": [asdict(entry) for entry in skipped],
        "tar": None,
        "members": None,
    }
    if converted:
        record["converted"] = dict(sorted(converted.items()))
    if len(columns):
        record["tar"] = {
            "count": len(columns),
            "bytes": tar.size,
            "sha256": tar.sha256.hexdigest(),
            "pixel_sum": columns.pixel_sum.tolist(),
            "pixel_square_sum": columns.pixel_square_sum.tolist(),
        }
        record |= columns.index().to_json()
    index = json.dumps(record).encode()
    atomic.write_bytes(folder / task.index_name, index)
    ShardRecord(
        index_sha256=hashlib.sha256(index).hexdigest(),
        keys=task.key_hashes,
        stamps=task.stamps,
        contents=np.array(contents, np.uint64),
    ).write(folder, task.name)
    written = written_by(index, task)
    assert written is not None
    return written


def written_by(index: bytes, task: ShardTask) -> Written | None:
    """The result in the bytes of an index; None where they are damaged."""
    try:
        record = json.loads(index)
        skipped = tuple(Skipped(**entry) for entry in record["skipped"])
        converted = record.get("converted", {})
        if (tar := record["tar"]) is None:
            return Written(shard=None, skipped=skipped, converted=converted)
        shard = Shard(
            name=task.name,
            split=task.split,
            count=tar["count"],
            bytes=tar["bytes"],
            sha256=tar["sha256"],
            index_sha256=hashlib.sha256(index).hexdigest(),
            pixel_sum=tuple(tar["pixel_sum"]),
            pixel_square_sum=tuple(tar["pixel_square_sum"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    return Written(shard=shard, skipped=skipped, converted=converted)
