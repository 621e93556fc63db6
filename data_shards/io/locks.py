"""Locks between processes, on one machine or on a shared file system that supports them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


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
