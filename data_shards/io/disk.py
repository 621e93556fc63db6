"""The disks of this machine: the user's cache, free room, the digest of a file."""

import hashlib
import os
import shutil
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Folder `name` of the user's cache for re-downloadable and recomputable files, made where it is missing.

    The cache is $SIGMA_VAE_CACHE, else sigma-vae under $XDG_CACHE_HOME or ~/.cache.
    """
    root = os.environ.get("SIGMA_VAE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sigma-vae"
    folder = Path(root).expanduser() / name
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
