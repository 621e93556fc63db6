"""Files and folders that are either whole or not there.

What is written goes beside its place first, is synced to the disk, and is then renamed; the folder's entry is synced
last. A process that dies, or a disk that fills up, leaves the former content untouched.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def sync_folder(folder: Path) -> None:
    """Makes the renames inside `folder` last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a binary file that takes the place of `path` when the block ends, and is gone when the block fails."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces the content of `path` by `data`."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replaces the content of `path` by `text` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Replaces the content of `path` by `content` as JSON that a person can read. NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def replace_folder(beside: Path, final: Path) -> None:
    """Syncs the files of the folder `beside` and renames it to `final`, in whose place nothing but ruins may be."""
    for file in beside.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        else:
            sync_folder(file)
    sync_folder(beside)
    if final.exists():
        shutil.rmtree(final)
    os.replace(beside, final)
    sync_folder(final.parent)
