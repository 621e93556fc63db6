"""The images below a folder, and what else is there by reason and number."""

import functools
import mimetypes
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_shards.decoding.formats import PREFIX_BYTES, extension_by_content, extensions, missing_plugin
from data_shards.io.regular_files import open_regular

HIDDEN = "hidden"
MAC = "extra files of macOS"
THUMBNAILS = "thumbnails"
REMOVED = "removed, or of the system"
UNFINISHED = "backups and unfinished downloads"
BROKEN_LINK = "broken links"
NO_FILE = "neither file nor folder"
REACHED_BEFORE = "links to folders that are listed already"
AROUND = "links to folders that hold the source itself"

# Lower case. Folders that file managers, synchronisers and systems make beside what a person put there.
_UNWANTED_FOLDERS = {
    "__macosx": MAC,
    "thumbs": THUMBNAILS,
    "thumbnails": THUMBNAILS,
    "@eadir": THUMBNAILS,
    "#recycle": REMOVED,
    "$recycle.bin": REMOVED,
    "recycler": REMOVED,
    "system volume information": REMOVED,
    "lost+found": REMOVED,
}
_UNWANTED_FILES = {"thumbs.db": THUMBNAILS, "ehthumbs.db": THUMBNAILS, "icon\r": MAC}
_UNFINISHED = ("~", ".bak", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is below a folder."""

    names: tuple[str, ...]
    """The images: paths below the folder with / between their parts, sorted by part. Bytes of a name that are not UTF-8
    are surrogates, as Python's own paths have them."""
    left_out: Mapping[str, int]
    """How many files are left out, by reason."""


def list_images(folder: Path) -> Listing:
    """Lists the images below `folder`.

    An image is a file with an extension of a format that can be decoded here, or with an unknown extension and the
    first bytes of a common format. Links are followed, but no folder is listed twice: where links lead to a folder
    that is below `folder` anyway, or to one another, only one way is taken. Raises OSError where a folder cannot be
    read.
    """
    walk = _Walk(folder)
    walk.run()
    return Listing(names=tuple(sorted(walk.names, key=_by_part)), left_out=dict(sorted(walk.left_out.items())))


def _by_part(name: str) -> list[str]:
    return name.split("/")


class _Walk:
    def __init__(self, folder: Path) -> None:
        self.names: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._root = os.fspath(folder)
        place = Path(os.path.realpath(folder))
        self._around = {_identity(parent) for parent in place.parents}
        self._seen: set[tuple[int, int]] = set()
        self._links: list[str] = []

    def run(self) -> None:
        # The real folders come first, so that a link to one of them is what is left out.
        self._list("")
        for prefix in iter(lambda: self._links.pop(0) if self._links else None, None):
            if _identity(self._path(prefix)) in self._around:
                self.left_out[AROUND] += 1
            else:
                self._list(prefix)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _list(self, start: str) -> None:
        waiting = [start]
        while waiting:
            prefix = waiting.pop()
            identity = _identity(self._path(prefix))
            if identity in self._seen:
                self.left_out[REACHED_BEFORE] += 1
                continue
            self._seen.add(identity)
            with os.scandir(self._path(prefix)) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    self._take(entry, f"{prefix}/{entry.name}" if prefix else entry.name, waiting)

    def _take(self, entry: os.DirEntry[str], name: str, waiting: list[str]) -> None:
        """Takes an entry by its name below the source; folders that are to be listed next go to `waiting`."""
        if _leads_nowhere(entry):
            self.left_out[BROKEN_LINK] += 1
        elif entry.is_dir():
            if reason := unwanted_folder(entry.name):
                self.left_out[reason] += sum(1 for _ in _files_below(entry.path))
            elif entry.is_symlink():
                self._links.append(name)
            else:
                waiting.append(name)
        elif reason := self._unwanted(entry):
            self.left_out[reason] += 1
        else:
            self.names.append(name)

    def _unwanted(self, entry: os.DirEntry[str]) -> str | None:
        if reason := unwanted_file(entry.name):
            return reason
        if not entry.is_file():
            return NO_FILE
        return not_an_image(entry.path)


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # missing, or a circle of links


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _files_below(folder: str) -> Iterator[str]:
    for _, _, names in os.walk(folder):
        yield from names


def unwanted_folder(name: str) -> str | None:
    """Why a folder of that name is not looked into, or None."""
    if name.lower() in _UNWANTED_FOLDERS:
        return _UNWANTED_FOLDERS[name.lower()]
    return HIDDEN if name.startswith(".") else None


def unwanted_file(name: str) -> str | None:
    """Why a file of that name is left out whatever it holds, or None."""
    if name.startswith("._"):
        return MAC
    if name.startswith("."):
        return HIDDEN
    if name.lower() in _UNWANTED_FILES:
        return _UNWANTED_FILES[name.lower()]
    return UNFINISHED if name.lower().endswith(_UNFINISHED) else None


def extension_of(name: str) -> str:
    """The extension of a file name, lower case, without the dot; "" where it has none."""
    return os.path.splitext(name)[1][1:].lower()


def not_an_image(path: str) -> str | None:
    """Why the file is not one that can be decoded as an image here, or None. Unknown files are opened."""
    extension = extension_of(path)
    if extension in extensions():
        return None
    if plugin := missing_plugin(extension):
        return f".{extension}, which needs the package {plugin}"
    if extension in _other_extensions() or extension_by_content(_first_bytes(path)) is None:
        return f"not images (.{extension})" if extension else "not images (no extension)"
    return None


def _first_bytes(path: str) -> bytes:
    with open(path, "rb", opener=open_regular) as file:
        return file.read(PREFIX_BYTES)


@functools.cache
def _other_extensions() -> frozenset[str]:
    # Those that Python knows to be of something else. They are not opened: beside every image may lie a text.
    return frozenset(extension[1:] for extension in mimetypes.MimeTypes().types_map[True])
