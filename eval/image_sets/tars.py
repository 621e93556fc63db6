"""WebDataset tars: the image of each sample, in the order of the tars."""

import glob
import re
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import xxhash

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.formats import extensions
from data_shards.io.errors import InputError
from data_shards.pixels import Pixels
from eval.image_sets.copies import fetched, is_remote, path_in, unpacked
from eval.image_sets.encoded_images import decoded
from eval.image_sets.image_set import Decisions, ImageSet, chosen

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


_MOST_TARS = 1_000_000
_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_pattern(word: str) -> bool:
    """Whether a word may be the name of tars: data.tar, data-{000..009}.tar, data-*.tar.gz, https://host/data.tar."""
    return path_in(word).lower().endswith(_ENDINGS)


def tar_images(word: str, *, n: int | None, seed: int, recipe: Pixels | None = None) -> ImageSet:
    """n images of tars, by a seeded choice; all where n is None.

    recipe: see `encoded_images.decoded`. Raises InputError where there is no tar or image."""
    members: dict[str, _Member] = {}
    left_out: Counter[str] = Counter()
    for name, path in _tars(word):
        for key, member in _images_of(name, path, left_out).items():
            members[f"{name}: {key}"] = member
    if not members:
        raise InputError(f"{word}: no images in it; raw shards of this program are given as shards:FOLDER/SPLIT")
    names = list(members)
    names = [names[i] for i in chosen(n, len(names), seed, word)]
    decisions = Decisions()
    digest = xxhash.xxh3_128()
    for name in names:
        digest.update(xxhash.xxh3_128_digest(members[name].read()))
    return ImageSet(
        name=word,
        n=len(names),
        images=decoded(names, lambda name: members[name].read(), decisions, recipe),
        identity={"kind": "files", "content": digest.hexdigest(), "n": len(names)},
        notes=[f"{word}: left out: {count:,} {reason}" for reason, count in sorted(left_out.items())],
        names=names,
        decisions=decisions,
    )


@dataclass(frozen=True)
class _Member:
    """Where the bytes of an image lie."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise BadImage("cut short: the tar ends before it")
        return data


def _tars(word: str) -> list[tuple[str, Path]]:
    """What each tar is called, and where it lies on this machine."""
    if Path(word).is_file():
        return [(word, Path(word))]
    words = [word]
    while (found := next((m for w in words if (m := _BRACES.search(w))), None)) is not None:
        first, last = found[1], found[2]
        if int(last) < int(first):
            raise InputError(f"{word}: the range {found[0]} is empty; give the smaller number first")
        if len(words) * (int(last) - int(first) + 1) > _MOST_TARS:
            raise InputError(f"{word}: names more than {_MOST_TARS:,} tars; give a smaller range")
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        words = [w.replace(found[0], number, 1) for w in words for number in numbers]
    if is_remote(word):
        if "*" in path_in(word):
            raise InputError(f"{word}: names on other machines are not searched; give a range, such as {{000..009}}")
        return [(w, fetched(w)) for w in words]
    paths = [Path(path) for w in words for path in (sorted(glob.glob(w)) if glob.has_magic(w) else [w])]
    if not paths:
        raise InputError(f"{word}: no tar has such a name")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: missing; {len(missing)} of the {len(paths)} tars of {word} are not there")
    return [(str(path), path) for path in paths]


def _images_of(name: str, path: Path, left_out: Counter[str]) -> dict[str, _Member]:
    """The first image of each sample, by the sample's key, which ends at the first dot of the file name.

    name: what the tar is called in messages.
    """
    found: dict[str, _Member] = {}
    path = unpacked(path, name) or path
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                folder, _, file = member.name.rpartition("/")
                key, _, extension = file.partition(".")
                if not member.isreg() or extension.rpartition(".")[2].lower() not in extensions():
                    left_out[f"members that are no images (.{extension})"] += 1
                elif member.issparse():
                    left_out["members stored with holes, which are not read: pack the tar without --sparse"] += 1
                elif (whole := f"{folder}/{key}") in found:
                    left_out["further images of the same sample"] += 1
                else:
                    found[whole] = _Member(path, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise InputError(f"{name}: not a tar, or cut short ({error}); get the file again") from error
    return found
