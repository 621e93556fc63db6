"""Files and folders that are either complete or not there.

Content is first written under a temporary name in the same folder, synced to the disk, and then renamed; the folder's
entry is synced last. A process that dies, or a disk that fills up, leaves the former content untouched.
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_shards.io.errors import machine_faults
from data_shards.io.removal import remove_own


def sync_folder(folder: Path) -> None:
    """Makes the renames inside `folder` survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with machine_faults(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a binary file that replaces `path` when the block ends, and is removed when the block fails.

    Raises MachineFault, which names `path`, where the disk is full or cannot be written.
    """
    path = Path(path)
    # Containers that share a disk often run the same command under the same number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{secrets.randbelow(10**6):06}.partial")
    with machine_faults(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            if error.filename == os.fspath(temporary):
                error.filename = os.fspath(path)  # the name that the user knows
            raise
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces the content of `path` by `data`."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replaces the content of `path` by `text` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Replaces the content of `path` by `json_text(content)`."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """`content` as JSON that a person can read. Raises ValueError for NaN and infinity."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def replace_folder(temporary: Path, final: Path, files: re.Pattern[str]) -> None:
    """Syncs the files of the folder `temporary` and renames it to `final`.

    files: the names of the files of a former `final`, which is removed where it has no others; else raises OSError.
    """
    for file in temporary.rglob("*"):
        if file.is_file():
            with machine_faults(final / file.relative_to(temporary)), file.open("rb") as handle:
                os.fsync(handle.fileno())
        else:
            sync_folder(file)
    sync_folder(temporary)
    remove_own(final, files)
    try:
        os.replace(temporary, final)
    except OSError as error:
        error.filename = os.fspath(final)  # the name that the user knows
        raise
    sync_folder(final.parent)
