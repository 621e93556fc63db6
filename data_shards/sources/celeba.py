"""CelebA as its authors distribute it.

    img_align_celeba/000001.jpg ...   or img_align_celeba.zip with these files, read without unpacking
    list_eval_partition.txt           "000001.jpg 0", with 0 train, 1 valid, 2 test
    list_attr_celeba.txt              optional: count, names, then "000001.jpg -1 1 ..." a line

The files may lie in the folder itself or in the folders Img, Eval and Anno below it.
"""

import functools
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError
from data_shards.sources.source import Dataset, Read, Sample, Source, encoded_sample, read_file, stamp_of_file

SPLITS = ("train", "valid", "test")  # 0, 1, 2 in the partition file
IMAGES, ARCHIVE = "img_align_celeba", "img_align_celeba.zip"
PARTITION, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"


class CelebASource(Source):
    """The images of `folder` in the official splits, with their attributes as JSON where the file is there.

    Raises InputError where a file is missing or a line of it is wrong.
    """

    name = "celeba"

    def __init__(self, folder: Path) -> None:
        images = _find(folder, IMAGES) or _find(folder, ARCHIVE)
        partition = _find(folder, PARTITION)
        if images is None:
            raise InputError(
                f"{folder}: neither {IMAGES}/ nor {ARCHIVE} there; give CelebA's folder", parameter="source"
            )
        if partition is None:
            raise InputError(
                f"{folder}: no {PARTITION} there; it comes with CelebA and holds the official splits",
                parameter="source",
            )
        self._images = images
        self._attributes = _find(folder, ATTRIBUTES)
        self._files = read_partition(partition)
        self.keys: Mapping[str, Sequence[str]] = {
            split: [PurePosixPath(file).stem for file in files] for split, files in self._files.items()
        }
        if self._attributes is not None:
            read_attributes(self._attributes)  # finds a wrong line now rather than after an hour

    def read(self, split: str, index: int) -> Sample:
        """The JPEG file and, as member json, {"Smiling": true, ...}."""
        return _read(self._images, self._attributes, [self._files[split][index]], 0)

    def reader(self, split: str, rows: NDArray[np.int64]) -> Read:
        """With the names of these files alone."""
        return functools.partial(_read, self._images, self._attributes, [self._files[split][row] for row in rows])

    def stamps(self, split: str) -> NDArray[np.uint64]:
        """Of each file's size and time, or size and CRC in the archive, and of its attributes."""
        values = read_attributes(self._attributes)[1] if self._attributes is not None else {}
        files = self._files[split]
        stamps = (xxhash.xxh3_64_intdigest(f"{self._stamp(file)} {values.get(file)}".encode()) for file in files)
        return np.fromiter(stamps, np.uint64, len(files))

    def _stamp(self, file: str) -> int:
        if self._images.suffix != ".zip":
            return stamp_of_file(self._images / file)
        archive, names = _archive(self._images)
        if file not in names:
            return 0
        member = archive.getinfo(names[file])
        return xxhash.xxh3_64_intdigest(b"%d %d" % (member.file_size, member.CRC))


def _read(images: Path, attributes: Path | None, files: Sequence[str], place: int) -> Sample:
    file = files[place]
    data = _read_archived(images, file) if images.suffix == ".zip" else read_file(images / file)
    extras = {}
    if attributes is not None:
        names, values = read_attributes(attributes)
        if file not in values:
            raise BadImage(f"not in {ATTRIBUTES}")
        row = dict(zip(names, (word == "1" for word in values[file].split()), strict=True))
        extras["json"] = json.dumps(row, separators=(",", ":")).encode()
    return encoded_sample(data, "jpg", extras)


DATASETS = (
    Dataset(
        name="celeba",
        open=lambda folder, _: CelebASource(folder),
        files="folder with img_align_celeba/ or img_align_celeba.zip, list_eval_partition.txt and perhaps "
        "list_attr_celeba.txt",
        channels=3,
        crop=140,
    ),
)


def _find(folder: Path, name: str) -> Path | None:
    for place in (folder, folder / "Img", folder / "Eval", folder / "Anno"):
        if (place / name).exists():
            return place / name
    return None


def read_partition(path: Path) -> dict[str, list[str]]:
    """File names of each split, in the order of the file."""
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise InputError(f"{path}, line {number}: {line!r} is not a file name and 0, 1 or 2; get the file again")
        if words[0] in seen or PurePosixPath(words[0]).name != words[0]:
            raise InputError(f"{path}, line {number}: {words[0]!r} is there twice or is not a plain file name")
        seen.add(words[0])
        files[SPLITS[int(words[1])]].append(words[0])
    if not seen:
        raise InputError(f"{path}: empty; get the file again")
    return {split: names for split, names in files.items() if names}


def read_attributes(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the attributes, and the values "-1 1 ..." of each file."""
    return _parsed_attributes(path, stamp_of_file(path))


@functools.lru_cache(maxsize=1)
def _parsed_attributes(path: Path, stamp: int) -> tuple[list[str], dict[str, str]]:
    lines = path.read_text().splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    values = {}
    for number, line in enumerate(lines[2:], start=3):
        file, _, row = line.partition(" ")
        words = row.split()
        if len(words) != len(names) or not set(words) <= {"1", "-1"}:
            raise InputError(
                f"{path}, line {number}: not a file name and {len(names)} values 1 or -1; get the file again"
            )
        values[file] = row
    return names, values


def _archive(path: Path) -> tuple[zipfile.ZipFile, dict[str, str]]:
    return _opened_archive(path, stamp_of_file(path))


@functools.lru_cache(maxsize=1)
def _opened_archive(path: Path, stamp: int) -> tuple[zipfile.ZipFile, dict[str, str]]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a zip archive, or cut short ({error}); get the file again") from error
    return archive, {PurePosixPath(name).name: name for name in archive.namelist()}


def _read_archived(path: Path, file: str) -> bytes:
    archive, names = _archive(path)
    if file not in names:
        raise BadImage("missing")
    try:
        return archive.read(names[file])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BadImage(f"unreadable in the archive: {error}") from error
