"""A bounded local copy of remote shards, shared by all processes of a node.

Each shard is fetched once, checked against the sha256 of the manifest, and renamed into place under a lock of its own,
so that ranks that want the same shard wait for one download and ranks that want others do not. Where the limit is
reached, the shards used longest ago go first; a process that still reads one keeps its open file.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from data_shards import checksum
from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest, Shard
from data_shards.storage.address import Address, Unreachable

_ATTEMPTS = 3
_SECONDS_BEFORE_RETRY = 0.2


class ShardCache:
    """Local files of the shards at a remote address.

    remote        where the shards are
    manifest      of these shards; its hash names the folder, so that other shards never mix in
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
        """A file descriptor of the local tar, fetched if need be. Raises Unreachable where it cannot be had."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self._open_local(shard)
            self.fetch(shard, wait=True)  # another process may remove it before the next turn, so look again

    def discard(self, shard: Shard) -> bool:
        """Removes a local copy that turned out to be damaged; True: open it again and it is fetched anew."""
        with self._locked(shard, wait=True):
            for name in (shard.name, shard.index_name):
                (self._folder / name).unlink(missing_ok=True)
        return True

    def fetch(self, shard: Shard, *, wait: bool) -> None:
        """Brings the shard into the cache. With wait=False, leaves it alone while another process brings it.

        Raises Unreachable after several attempts, InputError where the disk is full.
        """
        with self._locked(shard, wait=wait) as mine:
            if not mine or (self._folder / shard.name).is_file():
                return
            for attempt in range(_ATTEMPTS):
                try:
                    self._download(shard)
                    return
                except Unreachable:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(_SECONDS_BEFORE_RETRY * 2**attempt)

    def _open_local(self, shard: Shard) -> int:
        path = self._folder / shard.name
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(file).st_size != shard.bytes:  # cut short since it was checked
            os.close(file)
            self.discard(shard)
            raise FileNotFoundError(path)
        os.utime(file)  # used just now
        return file

    def _download(self, shard: Shard) -> None:
        # The name tells how much room the download takes, before it has taken it.
        beside = self._folder / f".{shard.name}.{shard.bytes}.partial"
        self._make_room(shard.bytes, beside)
        try:
            self._remote.download(shard.name, beside)
            if checksum.sha256_of_file(beside) != shard.sha256:
                raise Unreachable(f"{self.address_of(shard)}: does not have the sha256 of the manifest")
            os.replace(beside, self._folder / shard.name)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self._root}: the disk of the shard cache is full; free some, or lower the limit of "
                f"{self._limit / 1e9:.1f} GB, or put the cache elsewhere by SIGMA_VAE_CACHE"
            ) from error
        finally:
            beside.unlink(missing_ok=True)

    def _make_room(self, needed: int, beside: Path) -> None:
        """Removes the shards used longest ago until `needed` bytes fit, and takes them by creating `beside`."""
        with _flock(self._root / ".room", wait=True):
            kept = sorted(self._root.glob("*/*.tar"), key=_last_used)
            total = sum(map(_size, kept)) + sum(int(part.name.split(".")[-2]) for part in self._downloads())
            while kept and total + needed > self._limit:
                total -= _size(kept[0])
                kept.pop(0).unlink(missing_ok=True)
            beside.touch()

    def _downloads(self) -> Iterator[Path]:
        """Partial files of downloads under way; those of processes that died are removed."""
        for part in self._root.glob("*/.*.tar.*.partial"):
            lock = part.parent / f".{part.name[1:].split('.tar.')[0]}.tar.lock"
            with _flock(lock, wait=False) as abandoned:
                if abandoned:
                    part.unlink(missing_ok=True)
            if not abandoned:
                yield part

    @contextlib.contextmanager
    def _locked(self, shard: Shard, *, wait: bool) -> Iterator[bool]:
        with _flock(self._folder / f".{shard.name}.lock", wait=wait) as mine:
            yield mine


@contextlib.contextmanager
def _flock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock file `path`; yields whether it was free, which with wait=True it is in the end."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # Said, not left to close(): a child forked meanwhile has the file open too.
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


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
