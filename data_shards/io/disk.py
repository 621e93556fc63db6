"""The disks that processes share: the user's cache, free room, digests of files, and locks on them."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from data_shards.io.errors import InputError
from data_shards.io.regular_files import open_regular


def cache_folder(name: str) -> Path:
    """Folder `name` of the user's cache for re-downloadable and recomputable files, made where it is missing.

    The cache is $SIGMA_VAE_CACHE, else sigma-vae under $XDG_CACHE_HOME or ~/.cache. Raises InputError where that is in
    the home directory, and the system knows none.
    """
    root = os.environ.get("SIGMA_VAE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sigma-vae"
    try:
        folder = Path(root).expanduser() / name
    except RuntimeError as error:
        raise InputError(f"{root}: this user has no home directory; set HOME or SIGMA_VAE_CACHE") from error
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def existing_parent(path: Path) -> Path:
    """The nearest existing folder at or above `path`."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that `path` is or will be on."""
    return shutil.disk_usage(existing_parent(path)).free


def sha256_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb", opener=open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process (and one thread) at a time work on `path`; waits for its turn.

    The lock is the file .NAME.lock beside `path`. The lock of a process that dies is released.
    """
    with _lock(path):
        yield


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Like `locked`, but does not wait: yields False, without the lock, where someone else holds it."""
    lock = _lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    # Every user of a shared cache may take the lock.
    return FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)
