"""Local copies of files that lie elsewhere, or are compressed, in the user's cache.

A copy of a remote file has the name of the version that the server gives, so that another version is fetched anew;
where the server gives none, each command fetches the file.
"""

import bz2
import gzip
import lzma
import os
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import xxhash

from data_shards.io import atomic
from data_shards.io.address import DEFAULT_CACHE_BYTES, Address, Damaged
from data_shards.io.disk import cache_folder, locked
from data_shards.io.errors import InputError, machine_faults, raise_machine_fault
from data_shards.io.patience import Patience
from eval.protocol import fingerprint

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PATIENCE_SECONDS = 60.0
# As copies are called below; what else a person keeps in a folder of that name is no copy.
_COPY = re.compile(r"[0-9a-f]{16}-.*|[0-9a-f]{32}\.tar", re.DOTALL)
# A copy that another command may read now stays.
_UNUSED_SECONDS = 24 * 3600.0
_COMPRESSED: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


def is_remote(word: str) -> bool:
    """Whether a word is the address of a file on another machine."""
    return _REMOTE.match(word) is not None and not word.startswith("file://")


def path_in(word: str) -> str:
    """A word without what follows the path in an address, such as the signature of a link."""
    return word.partition("?")[0] if is_remote(word) else word.removeprefix("file://")


def fetched(address: str) -> Path:
    """The local copy of a remote file, which is fetched where it is missing, or where there is a newer one.

    Raises InputError where there is no such file, MachineFault where the server does not answer.
    """
    base, mark, query = address.partition("?")
    folder, _, name = base.rpartition("/")
    place, patience = Address(folder), Patience(_PATIENCE_SECONDS)
    file = f"{name}{mark}{query}"
    version = patience.wait_out(lambda seconds: place.version(file, quiet_seconds=seconds))
    # A signature differs each time that a link is made.
    copy = _copies() / f"{fingerprint({'address': base, **version})}-{name[-80:]}"
    with machine_faults(copy), locked(copy):
        if not copy.exists() or version.keys() <= {"size"}:
            _make_room(int(version.get("size", 0)))
            size = f" ({int(version['size']) / 1e6:,.1f} MB)" if "size" in version else ""
            print(f"fetching {base}{size} to {copy}", file=sys.stderr, flush=True)
            beside = copy.with_name(f".{copy.name}.partial")

            def download(seconds: float) -> None:
                place.download(file, beside, quiet_seconds=seconds)
                if "size" in version and beside.stat().st_size != int(version["size"]):
                    raise Damaged(f"{address}: {beside.stat().st_size} bytes arrived, not {version['size']}")

            try:
                patience.wait_out(download)
                os.replace(beside, copy)
            finally:
                beside.unlink(missing_ok=True)
        os.utime(copy)
    return copy


def unpacked(path: Path, name: str) -> Path | None:
    """The content of a file compressed by gzip, bzip2 or xz, in a local copy; None where it is not compressed.

    name: what the file is called in messages. Raises InputError where it is cut short or damaged.
    """
    with path.open("rb") as file:
        start = file.read(512)
    opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)
    if opener is None or start[257:262] == b"ustar":  # a tar whose first file has such a name
        return None
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    copy = _copies() / f"{digest.hexdigest()}.tar"
    with locked(copy):
        if not copy.exists():
            _make_room(4 * path.stat().st_size)
            try:
                with atomic.replacing(copy) as file, opener(path) as content:
                    shutil.copyfileobj(content, file, 1 << 20)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise_machine_fault(error, copy)
                raise InputError(f"{name}: cut short or damaged ({error}); get the file again") from error
        os.utime(copy)
    return copy


def _copies() -> Path:
    return cache_folder("images")


def _make_room(needed: int) -> None:
    """Removes the copies that were not used for longest, and not today, until `needed` bytes fit."""
    with locked(_copies() / "room"):
        copies = (path for path in _copies().iterdir() if _COPY.fullmatch(path.name) and path.is_file())
        kept = sorted((path.stat().st_mtime, path) for path in copies)
        total = sum(path.stat().st_size for _, path in kept)
        for used, path in kept:
            if total + needed <= DEFAULT_CACHE_BYTES or used > time.time() - _UNUSED_SECONDS:
                break
            total -= path.stat().st_size
            path.unlink(missing_ok=True)
