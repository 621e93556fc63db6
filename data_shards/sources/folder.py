"""Any folder of images, with or without folders train, valid and test in it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_shards.decoding.formats import extension_by_content, extensions
from data_shards.io.errors import InputError
from data_shards.sources.listing import extension_of, list_images
from data_shards.sources.source import Dataset, Sample, encoded_sample, fingerprint_of_keys, read_file

SPLITS = ("train", "valid", "test")
_NOT_IN_KEYS = re.compile(r"[^\w/-]", re.ASCII)


class FolderSource:
    """The images below `folder`, sorted by path.

    Folders named train, valid and test are the splits where there is a train; otherwise all images are train. With
    `num_valid`, the last so many of train become valid. The path without its extension is the key. Raises InputError
    where there is no image, or num_valid leaves none.
    """

    name = "folder"

    def __init__(self, folder: Path, *, num_valid: int) -> None:
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; give the folder of the images", parameter="source")
        splits = SPLITS if (folder / "train").is_dir() else ()
        self._folder = folder
        files = {split: _images_below(folder / split) for split in splits} or {"train": _images_below(folder)}
        train = files["train"]
        if not train:
            raise InputError(f"{folder}: no images below it; give a folder of images", parameter="source")
        if num_valid:
            if files.get("valid"):
                raise InputError(f"{folder / 'valid'} holds the split already; leave it out", parameter="num_valid")
            if not num_valid < len(train):
                raise InputError(
                    f"{num_valid} does not leave a training image of {len(train)}; use less", parameter="num_valid"
                )
            files = {"train": train[:-num_valid], "valid": train[-num_valid:], "test": files.get("test", [])}
        self._files = {split: paths for split, paths in files.items() if paths}
        self.keys: Mapping[str, Sequence[str]] = {
            split: _keys([path.relative_to(folder).with_suffix("").as_posix() for path in paths])
            for split, paths in self._files.items()
        }

    def read(self, split: str, index: int) -> Sample:
        """The image file."""
        path = self._files[split][index]
        data = read_file(path)
        extension = extension_of(path.name)
        return encoded_sample(data, extension if extension in extensions() else extension_by_content(path) or "jpg", {})

    def fingerprint(self) -> str:
        """Of the listed paths."""
        listed = {split: [os.fspath(path.relative_to(self._folder)) for path in p] for split, p in self._files.items()}
        return fingerprint_of_keys(listed)


DATASETS = (
    Dataset(
        name="folder",
        open=lambda folder, num_valid: FolderSource(folder, num_valid=num_valid),
        files="any folder of images, with train/, valid/, test/ in it or not",
        crop="square",
    ),
)


def _images_below(folder: Path) -> list[Path]:
    return [folder / name for name in list_images(folder).names] if folder.is_dir() else []


def _keys(names: list[str]) -> list[str]:
    """WebDataset keys, which end at the first dot: other characters become _, and duplicates get a number."""
    plain = [_NOT_IN_KEYS.sub("_", name) for name in names]
    taken = set(plain)
    seen: set[str] = set()
    keys = []
    for key in plain:
        number = 2
        unique = key
        while unique in seen or (unique != key and unique in taken):
            unique = f"{key}_{number}"
            number += 1
        seen.add(unique)
        keys.append(unique)
    return keys
