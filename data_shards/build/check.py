"""Whether a shard on the disk is what its source gives now."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_shards.build.layout import ShardTask
from data_shards.build.record import ShardRecord, read_record
from data_shards.build.writer import Written, write_shard, written_by
from data_shards.io.disk import sha256_of_file
from data_shards.io.errors import machine_fault
from data_shards.io.regular_files import read_regular
from data_shards.pixels import Pixels
from data_shards.sources.source import content_stamp


@dataclass(frozen=True, kw_only=True)
class CheckedShard:
    """What is on the disk of one shard."""

    written: Written | None
    """Its result where it is whole and of today's source; else None."""
    is_changed: bool
    """Whether the source has changed since, or what the shard was made from is not known."""


def check_shard(folder: Path, task: ShardTask, *, check_content: bool) -> CheckedShard:
    """Compares one shard with its source, its index and its sha256.

    Images of another size or time than before are read and compared by content; with check_content, all are.
    """
    record = read_record(folder, task.name)
    try:
        index = read_regular(folder / task.index_name)
    except FileNotFoundError:
        index = None
    if record is None:
        return CheckedShard(written=None, is_changed=True)
    if not _is_same_source(folder, task, record, check_content):
        return CheckedShard(written=None, is_changed=True)
    if index is None or hashlib.sha256(index).hexdigest() != record.index_sha256:
        return CheckedShard(written=None, is_changed=False)
    written = written_by(index, task)
    return CheckedShard(written=written if written and _is_whole(folder, task, written) else None, is_changed=False)


def ensure_shard(folder: Path, task: ShardTask, pixels: Pixels, *, check_content: bool) -> Written:
    """Writes the shard unless it is there, whole and of today's source."""
    return check_shard(folder, task, check_content=check_content).written or write_shard(folder, task, pixels)


def _is_same_source(folder: Path, task: ShardTask, record: ShardRecord, check_content: bool) -> bool:
    if not np.array_equal(record.keys, task.key_hashes):
        return False
    suspect = np.flatnonzero((record.stamps != task.stamps) | check_content)
    if any(content_stamp(task.read, int(place)) != record.contents[place] for place in suspect):
        return False
    if not np.array_equal(record.stamps, task.stamps):
        try:
            replace(record, stamps=task.stamps).write(folder, task.name)  # not to be read again at the next start
        except OSError as error:
            if machine_fault(error) is None:
                raise
            # a folder that is only read
    return True


def _is_whole(folder: Path, task: ShardTask, written: Written) -> bool:
    if written.shard is None:
        return True
    tar = folder / task.name
    if not tar.is_file() or tar.stat().st_size != written.shard.bytes:
        return False
    return sha256_of_file(tar) == written.shard.sha256
