"""The files of a shard set, local or remote, behind one interface."""

import os
from pathlib import Path
from typing import Protocol

from data_shards.io.address import Address
from data_shards.io.errors import InputError
from data_shards.io.user_cache import cache_folder
from data_shards.manifest import Manifest, Shard
from data_shards.storage.shard_cache import ShardCache

DEFAULT_CACHE_BYTES = 64 * 10**9


class ShardFiles(Protocol):
    """Where a reader gets shards from."""

    def address_of(self, shard: Shard) -> str:
        """Where the shard comes from, for messages."""

    def index(self, shard: Shard) -> bytes:
        """The shard's index. Raises OSError or Unreachable."""

    def open(self, shard: Shard) -> int:
        """A file descriptor of the tar. Raises OSError or Unreachable."""

    def discard(self, shard: Shard) -> bool:
        """Called where the tar or index is damaged; True: it is worth opening again."""


class ShardFolder:
    """Shards in a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address_of(self, shard: Shard) -> str:
        """Path of the tar."""
        return os.fspath(self._folder / shard.name)

    def index(self, shard: Shard) -> bytes:
        """The index. Raises OSError."""
        return (self._folder / shard.index_name).read_bytes()

    def open(self, shard: Shard) -> int:
        """A file descriptor of the tar. Raises OSError."""
        return os.open(self._folder / shard.name, os.O_RDONLY | os.O_CLOEXEC)

    def discard(self, shard: Shard) -> bool:
        """False: there is no other copy of a local shard."""
        return False


def shard_files(address: Address, manifest: Manifest, *, cache_bytes: int, split: str) -> ShardFiles:
    """The folder itself where it is local, else a cache of at most `cache_bytes` in the user's cache folder.

    Raises InputError where the cache cannot hold the shards of one shuffling window.
    """
    if address.local is not None:
        return ShardFolder(address.local)
    largest = sorted((shard.bytes for shard in manifest.shards_of(split)), reverse=True)
    if cache_bytes < (least := sum(largest[: manifest.window])):
        raise InputError(
            f"{cache_bytes} is less than the {least} of one shuffling window; give at least that, or build with a "
            "smaller window",
            parameter="cache_bytes",
        )
    return ShardCache(address, manifest, root=cache_folder("shards"), limit_bytes=cache_bytes)
