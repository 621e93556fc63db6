"""The image files in a folder or in a zip archive, which is read without unpacking it."""

import functools
import lzma
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import xxhash

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.formats import extensions
from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.regular_files import kind_if_no_file
from data_shards.sources.listing import extension_of, list_images, unwanted_file, unwanted_folder
from data_shards.sources.source import read_file, stamp_of_file

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def images_in(path: Path) -> Mapping[str, Sequence[str]]:
    """The places of the images in a folder or archive, by file name; a place is a path in it.

    Raises InputError where an archive cannot be read.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for place in list_images(path).names if path.is_dir() else _members(path):
        places[PurePosixPath(place.replace("\\", "/")).name].append(place)
    return places


def read_image(path: Path, place: str) -> bytes:
    """The bytes of one of the images. Raises BadImage where it is missing or unreadable, MachineFault for the machine,
    InputError where the archive is none any longer."""
    if path.is_dir():
        return read_file(path / place)
    archive = _archive(path)
    try:
        return archive.read(place)
    except KeyError as error:
        raise BadImage("missing") from error
    # Each kind of compression has an error of its own for damage; that of bzip2 is an OSError.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise_machine_fault(error, path)
        raise BadImage(f"unreadable in the archive: {error}") from error


def stamp_of_image(path: Path, place: str) -> int:
    """64 bits of an image's size and time, or of its size and CRC in the archive; 0 where it is missing."""
    if path.is_dir():
        return stamp_of_file(path / place)
    try:
        member = _archive(path).getinfo(place)
    except KeyError:
        return 0
    return xxhash.xxh3_64_intdigest(b"%d %d" % (member.file_size, member.CRC))


def are_the_same(path: Path, places: Sequence[str]) -> bool:
    """Whether the files at these places hold the same."""
    if path.is_dir():
        return len({read_image(path, place) for place in places}) == 1
    return len({stamp_of_image(path, place) for place in places}) == 1


def _members(path: Path) -> list[str]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in _archive(path).infolist():
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        folders = [part for part in parts[:-1] if part != ".."]  # nothing is unpacked, so these lead nowhere
        if not parts or member.is_dir() or any(map(unwanted_folder, folders)) or unwanted_file(parts[-1]):
            continue
        if extension_of(parts[-1]) not in extensions():
            continue
        if member.flag_bits & 1:
            raise InputError(f"{path}: encrypted; unpack it with its password, and leave the folder in its place")
        if member.compress_type not in _COMPRESSIONS:
            raise InputError(f"{path}: compressed in a way that cannot be read here; unpack it")
        former = found.setdefault(member.filename, member)
        if (former.file_size, former.CRC) != (member.file_size, member.CRC):
            raise InputError(f"{path}: holds two images of the name {member.filename}; unpack it, and leave one out")
    return [*found]


def _archive(path: Path) -> zipfile.ZipFile:
    return _opened_archive(path, stamp_of_file(path))


@functools.lru_cache(maxsize=4)
def _opened_archive(path: Path, stamp: int) -> zipfile.ZipFile:
    if kind := kind_if_no_file(path):
        raise InputError(f"{path}: is {kind}; use a zip archive")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: not a zip archive, or cut short ({error}); get the file again") from error
