"""The class of each image where shards keep one: in the index, for folders that are classes, or as a `.cls` member."""

import os
import tarfile
from pathlib import Path

from data_shards.io.address import Address, Location
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest, Shard
from data_shards.shard_index import ShardIndex, parse_index
from data_shards.storage import ShardFiles, shard_files


def labels_of(location: Location, split: str) -> tuple[str, ...] | None:
    """The class of each image of a split, in the order of the source; None where any image has none.

    Reads the tars where the index has no classes, as of shards that hold them as WebDataset does. Raises InputError for
    a split that does not exist, and for a damaged shard.
    """
    manifest = Manifest.load(location)
    if split not in manifest.splits:
        raise InputError(f"{split!r} is not in the shards; use one of {', '.join(manifest.splits)}", parameter="split")
    address = Address(location)
    files = shard_files(address, manifest, split=split)
    found: list[str] = []
    for shard in manifest.shards_of(split):
        index = parse_index(files.index(shard), shard=files.address_of(shard), sha256=shard.index_sha256)
        labels = index.labels if index.labels is not None else _members(files, shard, index)
        if not all(labels):
            return None
        found += labels
    return tuple(found)


def _members(files: ShardFiles, shard: Shard, index: ShardIndex) -> tuple[str, ...]:
    """The contents of a tar's `.cls` members, by the order of the index; empty text for an image without one."""
    handle = files.open(shard)
    with os.fdopen(handle, "rb"):
        try:
            by_key = _labels_in(Path(f"/proc/self/fd/{handle}"))
        except (tarfile.TarError, EOFError) as error:
            raise InputError(f"{files.address_of(shard)}: not a whole tar ({error}); build the shards again") from error
    return tuple(by_key.get(key, "") for key in index.keys)


def _labels_in(path: Path) -> dict[str, str]:
    """The content of each `.cls` member of a tar, by its key."""
    found: dict[str, str] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if extension == "cls" and (content := tar.extractfile(member)) is not None:
                found[key] = content.read().decode(errors="replace").strip()
    return found
