"""Room on a disk for a file or folder that need not exist yet."""

import shutil
from pathlib import Path


def existing_parent(path: Path) -> Path:
    """The nearest existing folder at or above `path`."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that `path` is or will be on."""
    return shutil.disk_usage(existing_parent(path)).free
