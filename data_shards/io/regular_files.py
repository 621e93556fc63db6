"""Files that are read only where they are files: a pipe in the place of one would be waited for without end.

`open_regular` and `read_regular` are for files that are read here, `kind_if_no_file` for those that a library opens.
"""

import os
import stat
from pathlib import Path

from data_shards.io.errors import InputError


def kind_if_no_file(path: str | os.PathLike[str]) -> str:
    """What is at `path` in the place of a file, in words; empty for a file, a link to one, and where nothing is."""
    path = Path(path)
    if not path.exists() or path.is_file():
        return ""
    return "a folder" if path.is_dir() else "a pipe, a socket or a device"


def require_file_place(path: Path, parameter: str) -> None:
    """Raises InputError where no file can be written at the end of a long work: nothing but a file may be there now."""
    if not path.resolve().parent.is_dir():
        raise InputError(f"the folder of {path} does not exist; make it first", parameter=parameter)
    refuse_link_to_nothing(path, parameter)
    if kind := kind_if_no_file(path):
        raise InputError(f"{path} is {kind}; choose another name", parameter=parameter)


def refuse_link_to_nothing(path: Path, parameter: str) -> None:
    """Raises InputError where `path` is a link to a file that is missing, which a new file would take the place of."""
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path} is a link to {os.readlink(path)}, which does not exist; remove it, or choose another name",
            parameter=parameter,
        )


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
