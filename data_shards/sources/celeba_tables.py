"""CelebA's lists of splits and of attributes: the text files of its authors, and the CSV files of Kaggle."""

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_shards.io.errors import InputError
from data_shards.io.text import read_lines
from data_shards.sources.source import stamp_of_file

SPLITS = ("train", "valid", "test")  # 0, 1, 2 in the partition file


def read_partition(path: Path) -> dict[str, list[str]]:
    """File names of each split, in the order of the file: "000001.jpg 0" or "000001.jpg,0" a line."""
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    seen: dict[str, str] = {}  # names by what samples are known by: the name without its extension
    for number, words in _rows(path):
        if not seen and words[1:] == ["partition"]:
            continue  # the header of a CSV file
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path}, line {number}: {' '.join(words)!r} is not a file name and 0, 1 or 2; get the file again"
            )
        name, stem = words[0], PurePosixPath(words[0]).stem
        if seen.get(stem) == name or PurePosixPath(name).name != name:
            raise InputError(f"{path}, line {number}: {name!r} is there twice or is not a plain file name")
        if stem in seen:
            raise InputError(
                f"{path}, line {number}: {name!r} differs from {seen[stem]!r} by its extension alone, which is no part "
                "of a sample's key; rename one of them"
            )
        seen[stem] = name
        files[SPLITS[int(words[1])]].append(name)
    if not seen:
        raise InputError(f"{path}: empty; get the file again")
    return {split: names for split, names in files.items() if names}


def read_attributes(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the attributes, and the values "-1 1 ..." of each file.

    A first line with the number of files may come before the names.
    """
    return _parsed_attributes(path, stamp_of_file(path))


@functools.lru_cache(maxsize=1)
def _parsed_attributes(path: Path, stamp: int) -> tuple[list[str], dict[str, str]]:
    rows = _rows(path)
    _, names = next(rows, (1, []))
    count = int(names[0]) if len(names) == 1 and names[0].isdecimal() else None
    if count is not None:
        _, names = next(rows, (2, []))
    names = names[1:] if names[:1] == ["image_id"] else names
    values = {}
    for number, (file, *words) in rows:
        if len(words) != len(names) or not set(words) <= {"1", "-1"}:
            raise InputError(
                f"{path}, line {number}: not a file name and {len(names)} values 1 or -1; get the file again"
            )
        if file in values:
            raise InputError(f"{path}, line {number}: {file!r} is there twice; get the file again")
        values[file] = " ".join(words)
    if count is not None and count != len(values):
        raise InputError(f"{path}: attributes of {len(values)} files where its first line says {count}; get it again")
    return names, values


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the words of each line that has any; words are parted by spaces or by commas."""
    for number, line in enumerate(read_lines(path), start=1):
        if words := line.replace(",", " ").replace(";", " ").replace('"', " ").split():
            yield number, words
