"""Files that are read only where they are files: a pipe in the place of one would be waited for without end."""

import os
import stat
from pathlib import Path

from data_shards.io.errors import InputError


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file, also as the `opener` of `open`. Raises InputError for a pipe, a socket or a device."""
    # Without waiting for the other end of a pipe.
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # of a folder, reading says so
        return handle
    os.close(handle)
    raise InputError(f"{os.fspath(path)}: is a pipe or a device; use a file")


def read_regular(path: Path) -> bytes:
    """The content of a file. Raises as `open_regular`, and OSError."""
    with open(path, "rb", opener=open_regular) as file:
        return file.read()
