"""CelebA, as its authors distribute it and as it is found elsewhere.

    img_align_celeba/000001.jpg ...   the images, there or in folders below it, or
    img_align_celeba.zip              with these files in any of its folders, read without unpacking
    list_eval_partition.txt or .csv   "000001.jpg 0", with 0 train, 1 valid, 2 test
    list_attr_celeba.txt or .csv      optional: names, then "000001.jpg -1 1 ..." a line

The files may lie in the given folder or up to two folders below it. Images may be of any format: 000001.png is what the
lists call 000001.jpg.
"""

import functools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.formats import extensions
from data_shards.io.errors import InputError
from data_shards.sources.celeba_tables import read_attributes, read_partition
from data_shards.sources.division import name_hash
from data_shards.sources.folder import keys_of
from data_shards.sources.image_files import are_the_same, images_in, read_image, stamp_of_image
from data_shards.sources.listing import extension_of, unwanted_folder
from data_shards.sources.source import Dataset, Read, Sample, Source, encoded_sample

IMAGES, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition", "list_attr_celeba"
SAME_NAME = "of the same names in other folders"
OTHER_EXTENSION = "of the same names with other extensions"
_DEPTH = 2  # folders below the given one in which files are looked for


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image that the partition file names, or one that lies beside those."""

    name: str
    """As the partition file has it; else its file name."""
    place: str = ""
    """In the folder or archive of the images; empty where it is missing."""
    fault: str = ""
    """Why it cannot be used."""


class CelebASource(Source):
    """The images of `folder` in the official splits, with their attributes as JSON where the file is there.

    Images that the partition file does not name have no split, and are unusable. Raises InputError where a file is
    missing, a line of it is wrong, or nothing says which of two images of one name is meant.
    """

    name = "celeba"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; give CelebA's", parameter="source")
        found = list(_files(folder, _DEPTH))
        candidates = _candidates(folder, found)
        partition, self._attributes = (_table(found, name) for name in (PARTITION, ATTRIBUTES))
        if partition is None:
            raise InputError(
                f"{folder}: no {PARTITION}.txt or .csv there; it comes with CelebA and holds the official splits",
                parameter="source",
            )
        if self._attributes is not None:
            read_attributes(self._attributes)  # finds a wrong line now rather than after an hour
        listed = read_partition(partition)
        stems = {PurePosixPath(name).stem for names in listed.values() for name in names}
        self._images, places, self._notes = _images_of(folder, candidates, stems)
        chosen = _Chosen(self._images, places)
        self._files = {split: [chosen.image(name) for name in names] for split, names in listed.items()}
        self._files[next(iter(listed))] += [
            _Image(name=names[-1], place=places[names[-1]][0], fault=f"not in {partition.name}")
            for stem, names in sorted(chosen.named.items())
            if stem not in stems
        ]
        self._left_out = chosen.left_out
        keys = _keys([image.name for images in self._files.values() for image in images])
        self.keys: Mapping[str, Sequence[str]] = {
            split: [keys[image.name] for image in images] for split, images in self._files.items()
        }

    def read(self, split: str, index: int) -> Sample:
        """The image file and, as member json, {"Smiling": true, ...}."""
        return _read(self._images, self._attributes, [self._files[split][index]], 0)

    def reader(self, split: str, rows: NDArray[np.int64]) -> Read:
        """With the names of these files alone."""
        return functools.partial(_read, self._images, self._attributes, [self._files[split][row] for row in rows])

    def stamps(self, split: str) -> NDArray[np.uint64]:
        """Of each file's size and time, or size and CRC in the archive, of its attributes, and of its fault."""
        values = read_attributes(self._attributes)[1] if self._attributes is not None else {}
        images = self._files[split]
        stamps = (
            xxhash.xxh3_64_intdigest(
                f"{stamp_of_image(self._images, image.place)} {values.get(image.name)} {image.fault}".encode()
            )
            for image in images
        )
        return np.fromiter(stamps, np.uint64, len(images))

    def left_out(self) -> Mapping[str, int]:
        """Images whose names others have too, in another folder or with another extension."""
        return dict(self._left_out)

    def notes(self) -> Sequence[str]:
        """Which of several places the images are taken from."""
        left_out = [f"{self._images}: left out: {count:,} {reason}" for reason, count in self._left_out.items()]
        return [*self._notes, *left_out]


class _Chosen:
    """Which of the files of one name is meant."""

    def __init__(self, images: Path, places: Mapping[str, Sequence[str]]) -> None:
        self._images, self._places = images, places
        self.named: dict[str, list[str]] = defaultdict(list)
        """File names by their names without extension."""
        for name in places:
            self.named[PurePosixPath(name).stem].append(name)
        self.left_out: Counter[str] = Counter()

    def image(self, name: str) -> _Image:
        """The image that the partition file calls `name`: with this extension, else with another."""
        alike = self.named.get(PurePosixPath(name).stem, [])
        names = [name] if name in self._places else alike
        where = [place for one in names for place in self._places[one]]
        if not where:
            return _Image(name=name, fault="missing")
        if others := sum(len(self._places[one]) for one in alike) - len(where):
            self.left_out[OTHER_EXTENSION] += others
        if len(where) > 1:
            official = [place for place in where if PurePosixPath(place.replace("\\", "/")).parent.name == IMAGES]
            if len(official) != 1 and not are_the_same(self._images, where):
                raise InputError(
                    f"{self._images}: {where[0]} and {where[1]} are different images of one name, and which is meant "
                    "cannot be told; leave one of them out",
                    parameter="source",
                )
            self.left_out[SAME_NAME] += len(where) - 1
            where = official or where
        return _Image(name=name, place=where[0])


def _keys(names: Sequence[str]) -> dict[str, str]:
    """The key of each file name: the name without its extension, or where a dot is left in it, at which WebDataset ends
    a key, what `keys_of` makes of it."""
    without_dots = keys_of(names, np.fromiter(map(name_hash, names), np.uint64, len(names)))
    stems = [PurePosixPath(name).stem for name in names]
    return {name: key if "." in stem else stem for name, stem, key in zip(names, stems, without_dots, strict=True)}


def _read(images: Path, attributes: Path | None, files: Sequence[_Image], place: int) -> Sample:
    image = files[place]
    if image.fault:
        raise BadImage(image.fault)
    data = read_image(images, image.place)
    extras = {}
    if attributes is not None:
        names, values = read_attributes(attributes)
        if image.name not in values:
            raise BadImage(f"not in {attributes.name}")
        row = dict(zip(names, (word == "1" for word in values[image.name].split()), strict=True))
        extras["json"] = json.dumps(row, separators=(",", ":")).encode()
    return encoded_sample(data, extension_of(image.place), extras)


DATASETS = (
    Dataset(
        name="celeba",
        open=lambda folder, _: CelebASource(folder),
        files="folder with img_align_celeba/ or img_align_celeba.zip, list_eval_partition.txt or .csv, and perhaps "
        "list_attr_celeba.txt or .csv",
        channels=3,
        crop=140,
    ),
)


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Tables, archives and folders of images in the folder and in those below it."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                if entry.name.lower().startswith(IMAGES):
                    yield Path(entry.path)
                elif depth and not unwanted_folder(entry.name):
                    yield from _files(Path(entry.path), depth - 1)
            elif extension_of(entry.name) in ("txt", "csv", "zip") and not entry.name.startswith("."):
                yield Path(entry.path)


def _table(found: Sequence[Path], name: str) -> Path | None:
    tables = [path for path in found if path.stem.lower() == name and path.suffix.lower() in (".txt", ".csv")]
    return next((path for path in sorted(tables, key=lambda path: path.suffix.lower() != ".txt")), None)


def _candidates(folder: Path, found: Sequence[Path]) -> list[Path]:
    """Folders and archives that may hold the images, those of the official names first. Raises InputError for none."""
    candidates = [path for path in found if path.is_dir() or path.suffix.lower() == ".zip"]
    candidates.sort(key=lambda path: (not path.name.lower().startswith(IMAGES), not path.is_dir()))
    with os.scandir(folder) as entries:
        if any(extension_of(entry.name) in extensions() for entry in entries):
            candidates.append(folder)
    if not candidates:
        raise InputError(
            f"{folder}: neither {IMAGES}/ nor {IMAGES}.zip there; give CelebA's folder", parameter="source"
        )
    return candidates


def _images_of(
    folder: Path, candidates: Sequence[Path], stems: set[str]
) -> tuple[Path, Mapping[str, Sequence[str]], list[str]]:
    """The candidate that holds most of the images, their places in it by file name, and what was decided.

    stems: the names of the images without their extensions
    """
    best: tuple[int, Path, Mapping[str, Sequence[str]]] | None = None
    counts: dict[Path, int] = {}
    unreadable: list[InputError] = []
    for path in candidates:
        if best is not None and best[0] == len(stems):
            break
        try:
            places = images_in(path)
        except InputError as error:
            unreadable.append(error)
            continue
        counts[path] = len(stems & {PurePosixPath(name).stem for name in places})
        if counts[path] > (best[0] if best is not None else 0):
            best = counts[path], path, places
    if best is None:
        if unreadable:
            raise unreadable[0]
        raise InputError(
            f"{folder}: none of the images that {PARTITION} names is in {', '.join(path.name for path in counts)}",
            parameter="source",
        )
    _, chosen, places = best
    notes = [f"{path}: holds {count:,} of {len(stems):,} images, and is not used" for path, count in counts.items()]
    return (
        chosen,
        places,
        [note for path, note in zip(counts, notes, strict=True) if path != chosen]
        + [str(error) for error in unreadable],
    )
