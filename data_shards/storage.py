"""Where the stream reads shards: a local folder, or a bounded local copy of remote ones.

The copy is shared by all processes of a node. Each shard is fetched once, checked against the sha256 of the manifest,
and renamed into place under a lock of its own, so that ranks that need the same shard wait for one download and ranks
that need others do not. Where the limit is reached, the shards used longest ago are removed; a process that still reads
one keeps its open file. A server or network that fails is waited for (`io/patience.py`); a disk that fails is a
MachineFault.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from data_shards.io import atomic
from data_shards.io.address import Address, Damaged
from data_shards.io.disk import cache_folder, locked, locked_if_free, sha256_of_file
from data_shards.io.errors import InputError, MachineFault, machine_fault, machine_faults
from data_shards.io.patience import Patience
from data_shards.io.regular_files import open_regular, read_regular
from data_shards.manifest import Manifest, Shard

_OF_THE_FOLDER = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_QUIET_SECONDS_AHEAD = 5.0  # of a download that nobody waits for yet
_DIGITS = 16  # of a manifest's hash, which name the folder of its shards
_FOLDERS = "[0-9a-f]" * _DIGITS  # of the cache; what else lies beside them in the same folder is other people's
_PARTIAL = re.compile(r"\.(?P<shard>[A-Za-z0-9_-]+\.tar)\.(?P<bytes>\d+)\.partial")


class ShardFiles(Protocol):
    """Where a reader gets shards from."""

    def address_of(self, shard: Shard) -> str:
        """Where the shard comes from, for messages."""

    def index(self, shard: Shard) -> bytes:
        """The shard's index. Raises OSError or Unreachable; MachineFault where neither shard nor index is to blame."""

    def open(self, shard: Shard) -> int:
        """A file descriptor of the tar. Raises as `index`."""

    def discard(self, shard: Shard) -> bool:
        """Called where the tar or index is damaged; True: it is worth opening again."""

    def renew(self, shard: Shard) -> None:
        """Has tar and index read from where the shard lies, whatever copies there are. Raises as `index`."""


class ShardFolder:
    """Shards in a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address_of(self, shard: Shard) -> str:
        """Path of the tar."""
        return os.fspath(self._folder / shard.name)

    def index(self, shard: Shard) -> bytes:
        """The index. Raises OSError."""
        return read_regular(self._folder / shard.index_name)

    def open(self, shard: Shard) -> int:
        """A file descriptor of the tar. Raises OSError."""
        return open_regular(self._folder / shard.name)

    def discard(self, shard: Shard) -> bool:
        """False: there is no other copy of a local shard."""
        return False

    def renew(self, shard: Shard) -> None:
        """Does nothing: there are no copies."""


def shard_files(address: Address, manifest: Manifest, *, split: str, patience: Patience | None = None) -> ShardFiles:
    """The folder itself where it is local, else a cache as the address's location says.

    patience: None is that of the location. Raises InputError where the cache cannot hold the shards of one shuffling
    window, or where its folder is none.
    """
    if address.local is not None:
        return ShardFolder(address.local)
    location = address.location
    largest = sorted((shard.bytes for shard in manifest.shards_of(split)), reverse=True)
    if location.cache_bytes < (least := sum(largest[: manifest.window])):
        raise InputError(
            f"{location.cache_bytes} is less than the {least} of one shuffling window; give at least that "
            "(data.cache_bytes), or build with a smaller window",
            parameter="cache_bytes",
        )
    return ShardCache(address, manifest, patience=patience or Patience(location.patience_seconds))


class ShardCache:
    """Local files of the shards at a remote address.

    remote    where the shards are; its location says where the cache lies and how many bytes of shards its folder holds
              at most, over all data sets
    manifest  of these shards; its hash names the folder, so that shards of different content never mix
    patience  with the server and the network
    """

    def __init__(self, remote: Address, manifest: Manifest, *, patience: Patience) -> None:
        self._remote, self._patience, self._limit = remote, patience, remote.location.cache_bytes
        asked = remote.location.cache_dir
        try:
            self._root = Path(asked).expanduser() if asked else cache_folder("shards")
            self._folder = self._root / manifest.hash[:_DIGITS]
            self._folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{self._root} is not a folder; use one (data.cache_dir)", "cache_dir") from error
        except OSError as error:
            raise self._explained(error, asked) from error

    def address_of(self, shard: Shard) -> str:
        """Where the shard comes from, for messages."""
        return self._remote.of(shard.name)

    def index(self, shard: Shard) -> bytes:
        """The shard's index. Raises Unreachable or FileNotFoundError, MachineFault where no one waits any longer."""
        path = self._folder / shard.index_name
        with contextlib.suppress(FileNotFoundError), machine_faults(path):
            if _has_sha256(data := path.read_bytes(), shard.index_sha256):
                return data

        def read(quiet_seconds: float) -> bytes:
            data = self._remote.read_bytes(shard.index_name, quiet_seconds=quiet_seconds)
            if not _has_sha256(data, shard.index_sha256):
                raise Damaged(f"{self._remote.of(shard.index_name)}: does not have the sha256 of the manifest")
            return data

        data = self._patience.wait_out(read)
        with self._writing():
            atomic.write_bytes(path, data)
        return data

    def open(self, shard: Shard) -> int:
        """A file descriptor of the local tar, fetched first where it is missing. Raises as `index`."""
        while True:
            with contextlib.suppress(FileNotFoundError), machine_faults(self._folder / shard.name):
                return self._open_local(shard)
            self.fetch(shard)  # another process may remove it before the next turn, so look again

    def discard(self, shard: Shard) -> bool:
        """Removes a local copy that turned out to be damaged; True: opening it again downloads it."""
        with self._writing(), locked(self._folder / shard.name):
            for name in (shard.name, shard.index_name):
                (self._folder / name).unlink(missing_ok=True)
        return True

    def renew(self, shard: Shard) -> None:
        """Downloads the shard, over its copy if there is one, and forgets the copy of its index. Raises as `index`."""

        def download(quiet_seconds: float) -> None:
            with self._locked(shard):
                self._download(shard, quiet_seconds)
                (self._folder / shard.index_name).unlink(missing_ok=True)

        self._patience.wait_out(download)

    def fetch(self, shard: Shard) -> None:
        """Downloads the shard unless it is in the cache; waits where another process is downloading it.

        Raises as `index`.
        """

        def download(quiet_seconds: float) -> None:
            with self._locked(shard):
                self._download_if_missing(shard, quiet_seconds)

        self._patience.wait_out(download)

    def fetch_if_free(self, shard: Shard) -> None:
        """Like `fetch`, but returns at once where another process is downloading the shard, and tries only once."""
        with self._writing(), locked_if_free(self._folder / shard.name) as mine:
            if mine:
                self._download_if_missing(shard, _QUIET_SECONDS_AHEAD)

    def _open_local(self, shard: Shard) -> int:
        path = self._folder / shard.name
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(file).st_size != shard.bytes:  # cut short since it was checked
            os.close(file)
            self.discard(shard)
            raise FileNotFoundError(path)
        with contextlib.suppress(OSError):  # another user's file
            os.utime(file)  # used just now
        return file

    def _download_if_missing(self, shard: Shard, quiet_seconds: float) -> None:
        if not (self._folder / shard.name).is_file():
            self._download(shard, quiet_seconds)

    def _download(self, shard: Shard, quiet_seconds: float) -> None:
        # The name contains the size, so that other processes can reckon with it before the download is complete.
        beside = self._folder / f".{shard.name}.{shard.bytes}.partial"
        self._make_room(shard.bytes, beside)
        try:
            self._remote.download(shard.name, beside, quiet_seconds=quiet_seconds)
            if beside.stat().st_size != shard.bytes or sha256_of_file(beside) != shard.sha256:
                raise Damaged(f"{self.address_of(shard)}: does not have the sha256 of the manifest")
            os.replace(beside, self._folder / shard.name)
        finally:
            beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, shard: Shard) -> Iterator[None]:
        with self._writing(), locked(self._folder / shard.name):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes the folder where someone has emptied the cache meanwhile; turns faults of its disk into a MachineFault
        that says what can be changed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            if machine_fault(error) is None:
                raise
            raise self._explained(error) from error

    def _explained(self, error: OSError, folder: str = "") -> OSError:
        fault = machine_fault(error, folder or self._root)
        if fault is None:
            return error
        if fault.errno not in _OF_THE_FOLDER:
            return fault
        return MachineFault(
            f"{fault}; the shard cache may hold {self._limit / 1e9:.1f} GB (data.cache_bytes) and may lie in another "
            "folder (data.cache_dir)"
        )

    def _make_room(self, needed: int, beside: Path) -> None:
        """Removes the shards used longest ago until `needed` bytes fit, and reserves them by creating `beside`."""
        with locked(self._root / "room"):
            kept = sorted(self._root.glob(f"{_FOLDERS}/*.tar"), key=_last_used)
            total = sum(map(_size, kept)) + sum(self._downloads())
            while kept and total + needed > self._limit:
                total -= _size(kept[0])
                kept.pop(0).unlink(missing_ok=True)
            beside.touch()

    def _downloads(self) -> Iterator[int]:
        """Bytes of the downloads under way; partial files of processes that died are removed."""
        for part in self._root.glob(f"{_FOLDERS}/.*.partial"):
            if (found := _PARTIAL.fullmatch(part.name)) is None:
                continue
            with locked_if_free(part.with_name(found["shard"])) as abandoned:
                if abandoned:
                    part.unlink(missing_ok=True)
            if not abandoned:
                yield int(found["bytes"])


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
