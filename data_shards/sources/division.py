"""Divides the images of a folder into splits such that no image moves when others are added.

Where all images lie in folders named like splits, and some in one for training, these folders are the splits.
Otherwise, and for a split that has no folder, a 64-bit hash of each image's path decides, which depends on no other
image: test is a range of hashes from 0 on, valid the range after it, train the rest. A range is 5% of all hashes where
5% are asked for. Where 500 images are asked for it ends at the 500th smallest hash at the first build, and stays there
when the build is updated, so that the split then grows and shrinks with its source.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.io.errors import InputError
from data_shards.sources.portion import Portion

SPLITS = ("train", "valid", "test")
_FOLDER = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<valid>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing|s)?))"
    r"(?:[-_ ]?(?:set|split))?",
    re.IGNORECASE,
)
_HASHES = 2**64
_DAMAGED = "the division that its recipe.json records is damaged; choose another folder"
Range = tuple[int, int]
By = Literal["folders", "names"]


def name_hash(name: str) -> int:
    """64 bits of a path below the source, which any bytes may make up."""
    return xxhash.xxh3_64_intdigest(name.encode(errors="surrogateescape"))


def split_folder(name: str) -> str | None:
    """The outermost folder in a path that is named like a split, as it is written."""
    return next((part for part in name.split("/")[:-1] if _split_of(part)), None)


def _split_of(folder: str) -> str | None:
    """The split that a folder of that name holds: "Training" and "train_set" are train, "dev" is valid."""
    found = _FOLDER.fullmatch(folder)
    return found.lastgroup if found else None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What decides the split of an image."""

    by: By
    """Folders named like splits, or the hash of the path."""
    ranges: Mapping[str, Range]
    """Hashes, from the first to before the last, of the splits that are taken out of what is left for training."""

    def to_json(self) -> dict[str, Any]:
        """The record of a build. Hashes are written as hexadecimal texts: JSON's numbers are not exact everywhere."""
        return {"by": self.by, "hashes": {split: [f"{end:x}" for end in ends] for split, ends in self.ranges.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Rule":
        """The inverse of `to_json`. Raises InputError where the record is damaged."""
        try:
            ranges = {split: (int(first, 16), int(stop, 16)) for split, (first, stop) in record["hashes"].items()}
            rule = cls(by=record["by"], ranges=ranges)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(_DAMAGED, parameter="out") from error
        sound = all(0 <= first <= stop <= _HASHES for first, stop in ranges.values())
        if rule.by not in get_args(By) or not ranges.keys() <= set(SPLITS[1:]) or not sound:
            raise InputError(_DAMAGED, parameter="out")
        return rule


@dataclass(frozen=True, kw_only=True)
class Division:
    """The images of a folder by split."""

    rule: Rule
    rows: Mapping[str, NDArray[np.int64]]
    """Places in the listing of each split's images, ascending; splits without an image are left out."""
    found: str
    """What was found, in words."""


def divide(
    names: Sequence[str],
    hashes: NDArray[np.uint64],
    *,
    valid: Portion | None,
    test: Portion | None,
    default: Portion,
    kept: Rule | None,
) -> Division:
    """Divides the images with these paths and hashes of paths, both of length n.

    valid, test: what is asked for; None: `default` where there is no folder with the split. kept: the rule of a former
    build, which goes on to hold. Raises InputError where what is asked for does not go with the folders, or leaves no
    image for training.
    """
    folders = [split_folder(name) for name in names]
    spellings = sorted({folder for folder in folders if folder is not None})
    outside = [place for place, folder in enumerate(folders) if folder is None]
    own = {_split_of(folder) for folder in spellings}
    if kept is not None and kept.by == "folders" and outside:
        raise InputError(
            f"{names[outside[0]]} and {len(outside) - 1} more images lie outside the folders named like splits, by "
            f"which these shards are divided; move them into one, or build into another folder",
            parameter="source",
        )
    by_folders = kept.by == "folders" if kept is not None else not outside and "train" in own
    if by_folders:
        split_of = np.array([SPLITS.index(_split_of(folder)) for folder in folders if folder is not None])
        found = f"divided by its folders {', '.join(spellings)}"
        for name, wanted in (("valid", valid), ("test", test)):
            if name in own and wanted is not None and not wanted.is_none:
                raise InputError(
                    f"{' and '.join(f for f in spellings if _split_of(f) == name)} holds this split "
                    "already; leave the option out",
                    parameter=name,
                )
    else:
        split_of = np.zeros(len(names), np.int64)
        found = "one data set" + (_why_not_folders(folders, spellings, len(outside)) if spellings else "")
    pool = np.flatnonzero(split_of == 0)  # what is left for training
    missing = [name for name in ("test", "valid") if not (by_folders and name in own)]
    if kept is None:
        asked = {"valid": valid or default, "test": test or default}
        ranges = hash_ranges(hashes[pool], {name: asked[name] for name in missing})
    else:
        ranges = dict(kept.ranges)
    for split, (first, stop) in ranges.items():
        here = (hashes[pool] >= np.uint64(first)) & (hashes[pool] <= np.uint64(stop - 1))
        split_of[pool[here]] = SPLITS.index(split)
    rows = {split: np.flatnonzero(split_of == number) for number, split in enumerate(SPLITS)}
    if not len(rows["train"]):
        raise InputError(f"no image of {len(pool)} is left for training; hold out less", parameter="valid")
    return Division(
        rule=Rule(by="folders" if by_folders else "names", ranges=ranges),
        rows={split: places for split, places in rows.items() if len(places)},
        found=found + (f", {' and '.join(sorted(ranges))} by a hash of each file's name" if ranges else ""),
    )


def _why_not_folders(folders: Sequence[str | None], spellings: Sequence[str], outside: int) -> str:
    inside = f"{len(folders) - outside:,} of {len(folders):,} images lie in {', '.join(spellings)}"
    return f" ({inside}, {'not all' if outside else 'none in a folder for training'}, so these are no splits)"


def hash_ranges(hashes: NDArray[np.uint64], wanted: Mapping[str, Portion]) -> dict[str, Range]:
    """The range of hashes of each wanted split, one after the other from 0 on."""
    ordered = np.sort(hashes)
    if sum(one.percent or 0 for one in wanted.values()) >= 100:
        raise InputError("100% are held out, no image is left for training; hold out less", parameter="valid")
    ranges: dict[str, Range] = {}
    first = 0
    for number, (split, one) in enumerate(wanted.items()):
        if one.is_none:
            continue
        before = int(np.searchsorted(ordered, np.uint64(first)))
        rest = len(ordered) - before
        if one.images is not None:
            if one.images >= rest:
                raise InputError(f"{one} does not leave a training image of {rest}; use less", parameter=split)
            stop = int(ordered[before + one.images])
        else:
            stop = first + int(_HASHES * (one.percent or 0) / 100)
            inside = int(np.searchsorted(ordered, np.uint64(stop))) - before
            later = sum(not other.is_none for other in list(wanted.values())[number + 1 :])
            if not inside or inside + later >= rest:
                # Few images: at least one is held out if each of the later splits and train get one as well.
                if rest < later + 2:
                    continue
                count = min(one.of(len(ordered)), rest - later - 1) if inside else 1
                stop = int(ordered[before + count - 1]) + 1
        ranges[split] = (first, stop)
        first = stop
    return ranges
