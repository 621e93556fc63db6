"""Where the stream reads shards: a local folder, or a bounded local copy of remote ones, and the threads that fill it.

The copy is shared by all processes of a node. Each shard is fetched once, checked against the sha256 of the manifest,
and renamed into place under a lock of its own, so that ranks that need the same shard wait for one download and ranks
that need others do not. Where the limit is reached, the shards used longest ago are removed; a process that still reads
one keeps its open file.
"""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from data_shards.io import atomic
from data_shards.io.address import Address, Unreachable
from data_shards.io.disk import cache_folder, locked, locked_if_free, sha256_of_file
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest, Shard

DEFAULT_CACHE_BYTES = 64 * 10**9
_PREFETCH_THREADS = 2


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


class ShardCache:
    """Local files of the shards at a remote address.

    remote        where the shards are
    manifest      of these shards; its hash names the folder, so that shards of different content never mix
    root          folder of the cache; other data sets may be cached in the same one
    limit_bytes   most bytes of shards that `root` holds, over all data sets
    """

    def __init__(self, remote: Address, manifest: Manifest, *, root: Path, limit_bytes: int) -> None:
        self._remote, self._root, self._limit = remote, root, limit_bytes
        self._folder = root / manifest.hash[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def address_of(self, shard: Shard) -> str:
        """Where the shard comes from, for messages."""
        return self._remote.of(shard.name)

    def index(self, shard: Shard) -> bytes:
        """The shard's index, whose sha256 the caller checks. Raises Unreachable or FileNotFoundError."""
        path = self._folder / shard.index_name
        with contextlib.suppress(FileNotFoundError):
            if _has_sha256(data := path.read_bytes(), shard.index_sha256):
                return data
        data = self._remote.read_bytes(shard.index_name)
        if _has_sha256(data, shard.index_sha256):
            atomic.write_bytes(path, data)
        return data

    def open(self, shard: Shard) -> int:
        """A file descriptor of the local tar, fetched first where it is missing. Raises Unreachable."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self._open_local(shard)
            self.fetch(shard)  # another process may remove it before the next turn, so look again

    def discard(self, shard: Shard) -> bool:
        """Removes a local copy that turned out to be damaged; True: opening it again downloads it."""
        with locked(self._folder / shard.name):
            for name in (shard.name, shard.index_name):
                (self._folder / name).unlink(missing_ok=True)
        return True

    def fetch(self, shard: Shard) -> None:
        """Downloads the shard unless it is in the cache; waits where another process is downloading it.

        Raises Unreachable after several attempts, InputError where the disk is full.
        """
        with locked(self._folder / shard.name):
            self._download_if_missing(shard)

    def fetch_if_free(self, shard: Shard) -> None:
        """Like `fetch`, but returns at once where another process is downloading the shard."""
        with locked_if_free(self._folder / shard.name) as mine:
            if mine:
                self._download_if_missing(shard)

    def _open_local(self, shard: Shard) -> int:
        path = self._folder / shard.name
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(file).st_size != shard.bytes:  # cut short since it was checked
            os.close(file)
            self.discard(shard)
            raise FileNotFoundError(path)
        os.utime(file)  # used just now
        return file

    @retry(
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.2),  # 0.2 s, 0.4 s
        retry=retry_if_exception_type(Unreachable),
        reraise=True,
    )
    def _download_if_missing(self, shard: Shard) -> None:
        if (self._folder / shard.name).is_file():
            return
        # The name contains the size, so that other processes can reckon with it before the download is complete.
        beside = self._folder / f".{shard.name}.{shard.bytes}.partial"
        self._make_room(shard.bytes, beside)
        try:
            self._remote.download(shard.name, beside)
            if sha256_of_file(beside) != shard.sha256:
                raise Unreachable(f"{self.address_of(shard)}: does not have the sha256 of the manifest")
            os.replace(beside, self._folder / shard.name)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self._root}: the disk of the shard cache is full; free some, or lower the limit of "
                f"{self._limit / 1e9:.1f} GB, or set SIGMA_VAE_CACHE to a folder on another disk"
            ) from error
        finally:
            beside.unlink(missing_ok=True)

    def _make_room(self, needed: int, beside: Path) -> None:
        """Removes the shards used longest ago until `needed` bytes fit, and reserves them by creating `beside`."""
        with locked(self._root / "room"):
            kept = sorted(self._root.glob("*/*.tar"), key=_last_used)
            total = sum(map(_size, kept)) + sum(int(part.name.split(".")[-2]) for part in self._downloads())
            while kept and total + needed > self._limit:
                total -= _size(kept[0])
                kept.pop(0).unlink(missing_ok=True)
            beside.touch()

    def _downloads(self) -> Iterator[Path]:
        """Partial files of downloads under way; those of processes that died are removed."""
        for part in self._root.glob("*/.*.tar.*.partial"):
            shard = part.with_name(f"{part.name[1:].split('.tar.')[0]}.tar")
            with locked_if_free(shard) as abandoned:
                if abandoned:
                    part.unlink(missing_ok=True)
            if not abandoned:
                yield part


class Prefetcher:
    """Threads that fetch the shards given to `need` into the cache, the most urgent first.

    All ranks of a node may do so at once: a shard that another process is downloading is skipped.

    shards       the shards of the split, in source order
    limit_bytes  never fetch further ahead than this, the limit of the cache, or it would push out what is in use
    """

    def __init__(self, cache: ShardCache, shards: Sequence[Shard], limit_bytes: int) -> None:
        self._cache, self._shards, self._limit = cache, shards, limit_bytes
        self._wanted: list[Shard] = []
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_PREFETCH_THREADS)]
        for thread in self._threads:
            thread.start()

    def need(self, numbers: NDArray[np.int64]) -> None:
        """Replaces what is still to be fetched by the shards of these numbers, the most urgent first."""
        wanted: list[Shard] = []
        room = self._limit
        for number in numbers.tolist():
            room -= self._shards[number].bytes
            if room < 0:
                break
            wanted.append(self._shards[number])
        with self._changed:
            self._wanted = wanted[::-1]
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads after what they are fetching now."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted)
                if self._closed:
                    return
                shard = self._wanted.pop()
            try:
                self._cache.fetch_if_free(shard)
            except (Unreachable, InputError, OSError):
                continue  # not lost: the reader finds the same fault when it opens the shard, and reports it


def _has_sha256(data: bytes, sha256: str) -> bool:
    return hashlib.sha256(data).hexdigest() == sha256


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
