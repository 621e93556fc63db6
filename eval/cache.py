"""The folder for what is downloaded or computed once and shared by all runs of a user."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder(name: str) -> Path:
    """$XDG_CACHE_HOME/two-stage-sigma-vae/NAME, by default under ~/.cache; made where it is missing."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "two-stage-sigma-vae" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time of this machine (or of a shared file system with locks) work on `path`."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
