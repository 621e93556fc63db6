"""The folder for what is downloaded or computed once and shared by all runs of a user."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from data_shards.io.user_cache import cache_folder


def shared_folder(name: str) -> Path:
    """Folder NAME of the user's cache; made where it is missing."""
    folder = cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time of this machine (or of a shared file system with locks) work on `path`."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
