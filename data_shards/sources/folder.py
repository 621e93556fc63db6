"""Any folder of images, with folders of splits in it or not."""

import functools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.decoding.formats import extension_by_content, extensions
from data_shards.io.errors import InputError
from data_shards.io.text import in_utf8
from data_shards.sources.division import Rule, divide, name_hash, split_folder
from data_shards.sources.listing import extension_of, list_images
from data_shards.sources.portion import HeldOutPortions, Portion
from data_shards.sources.source import Dataset, Read, Sample, Source, encoded_sample, read_file, stamp_of_file

DEFAULT_PORTION = Portion(percent=5.0)
_NOT_IN_KEYS = re.compile(r"[^\w/-]", re.ASCII)


class FolderSource(Source):
    """The images below `folder`, sorted by path and divided into splits as `division.py` says.

    The path without its extension is the key; see `keys_of`. Raises InputError where there is no image, or what is to
    be held out does not go with the source.
    """

    name = "folder"

    def __init__(self, folder: Path, held_out: HeldOutPortions = HeldOutPortions()) -> None:  # noqa: B008  # frozen
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; give the folder of the images", parameter="source")
        listing = list_images(folder)
        names = listing.names
        if not names:
            raise InputError(f"{folder}: no images below it; give a folder of images", parameter="source")
        self._folder, self._names, self._left_out = folder, names, listing.left_out
        self._hashes = np.fromiter(map(name_hash, names), np.uint64, len(names))
        self._division = divide(
            names,
            self._hashes,
            valid=held_out.valid,
            test=held_out.test,
            default=DEFAULT_PORTION,
            kept=Rule.from_json(held_out.kept) if held_out.kept else None,
        )
        keys = keys_of(names, self._hashes)
        self.keys: Mapping[str, Sequence[str]] = {
            split: [keys[row] for row in rows] for split, rows in self._division.rows.items()
        }

    def read(self, split: str, index: int) -> Sample:
        """The image file."""
        return _read_named(self._folder, (self._names[self._division.rows[split][index]],), 0)

    def reader(self, split: str, rows: NDArray[np.int64]) -> Read:
        """With the names of these images alone."""
        names = tuple(self._names[row] for row in self._division.rows[split][rows])
        return functools.partial(_read_named, self._folder, names)

    def stamps(self, split: str) -> NDArray[np.uint64]:
        """Of size and time."""
        root, rows = os.fspath(self._folder), self._division.rows[split]
        return np.fromiter((stamp_of_file(f"{root}/{self._names[row]}") for row in rows), np.uint64, len(rows))

    def hashes(self, split: str) -> NDArray[np.uint64]:
        """Of the path below the source."""
        return self._hashes[self._division.rows[split]]

    def division(self) -> Mapping[str, Any]:
        """The rule of `division.py`."""
        return self._division.rule.to_json()

    def left_out(self) -> Mapping[str, int]:
        """By `listing.py`."""
        return self._left_out

    def notes(self) -> list[str]:
        """What was found, what became of it, and what is left out."""
        counts = ", ".join(f"{split} {len(rows):,}" for split, rows in self._division.rows.items())
        lines = [f"{self._folder}: {len(self._names):,} images, {self._division.found}: {counts}"]
        absent = [split for split in ("valid", "test") if split not in self._division.rows]
        if absent:
            lines.append(f"{self._folder}: no image is held out as {' or '.join(absent)}")
        if self._left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self._left_out.items())
            lines.append(f"{self._folder}: left out: {reasons}")
        return lines


DATASETS = (
    Dataset(
        name="folder",
        open=FolderSource,
        files="any folder of images, with train/, valid/, test/ in it or not",
        crop="square",
        valid=DEFAULT_PORTION,
        test=DEFAULT_PORTION,
        takes_every_image=True,
    ),
)


def _read_named(folder: Path, names: Sequence[str], place: int) -> Sample:
    path = folder / names[place]
    data = read_file(path)
    extension = extension_of(path.name)
    extension = extension if extension in extensions() else extension_by_content(data) or "jpg"
    return replace(encoded_sample(data, extension, {}), label=label_of(names[place]))


def label_of(name: str) -> str:
    """The folders of a path without the one that names a split: the class, where the folders are classes."""
    split = split_folder(name)
    folders = name.split("/")[:-1]
    if split is not None:
        folders.remove(split)
    return in_utf8("/".join(folders))


def keys_of(names: Sequence[str], hashes: NDArray[np.uint64]) -> list[str]:
    """WebDataset keys, which end at the first dot: paths without extension, with _ in place of other characters.

    Where that changes a name, or several images get the same key, 16 digits of the path's hash follow, so that a key
    does not depend on the order in which images are listed.
    """
    names = [name.encode(errors="surrogateescape").decode(errors="surrogateescape") for name in names]  # of any locale
    stems = [name[: -len(extension)] if (extension := os.path.splitext(name)[1]) else name for name in names]
    plain = [_NOT_IN_KEYS.sub("_", stem) for stem in stems]
    counts = Counter(plain)
    keys = [
        key if key == stem and counts[key] == 1 else f"{key}-{int(digits):016x}"
        for key, stem, digits in zip(plain, stems, hashes, strict=True)
    ]
    if len(set(keys)) == len(keys):
        return keys
    repeated = {key for key, count in Counter(keys).items() if count > 1}  # a file is named like another one's key
    return [
        f"{key}-{xxhash.xxh3_128_hexdigest(name.encode(errors='surrogateescape'))}" if key in repeated else key
        for key, name in zip(keys, names, strict=True)
    ]
