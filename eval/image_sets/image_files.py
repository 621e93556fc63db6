"""A folder of images, with the folders in it, or a zip archive of one."""

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import xxhash

from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError
from data_shards.manifest import FILE as MANIFEST
from data_shards.pixels import Pixels
from data_shards.sources.image_files import images_in, read_image, stamp_of_image
from data_shards.sources.listing import list_images
from eval.image_sets.encoded_images import decoded
from eval.image_sets.image_set import Decisions, ImageSet, chosen


def image_files(path: Path, *, name: str, n: int | None, seed: int, recipe: Pixels | None = None) -> ImageSet:
    """n images of a folder or zip archive, by a seeded choice; all where n is None.

    recipe: see `encoded_images.decoded`. Raises InputError for none."""
    left_out: Mapping[str, int] = {}
    if path.is_dir():
        if (path / MANIFEST).is_file():
            raise InputError(f"{path} holds shards; say which split, such as shards:{path}/test")
        listing = list_images(path)
        places, left_out = list(listing.names), listing.left_out
    else:
        places = sorted(place for same in images_in(path).values() for place in same)
        with zipfile.ZipFile(path) as archive:
            members = {member.filename for member in archive.infolist()}
        found = Counter(_kind(member) for member in members if not member.endswith("/"))
        found["members that are no images"] -= len(places)
        left_out = {kind: count for kind, count in found.items() if count > 0}
    if not places:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise InputError(f"{path}: no images in it{f' ({reasons})' if reasons else ''}; give a folder or zip of images")
    names = [places[i] for i in chosen(n, len(places), seed, name)]
    decisions = Decisions()
    notes = [f"{name}: left out: {count:,} {reason}" for reason, count in left_out.items()]
    extensions = Counter(Path(place).suffix.lower() for place in names)
    if len({".jpg" if suffix == ".jpeg" else suffix for suffix in extensions}) > 1:
        kinds = ", ".join(f"{count:,} {suffix or 'without extension'}" for suffix, count in sorted(extensions.items()))
        notes.append(f"{name}: files of several kinds: {kinds}")
    return ImageSet(
        name=name,
        n=len(names),
        images=decoded(names, lambda place: read_image(path, place), decisions, recipe),
        identity={"kind": "files", "content": _content(path, names), "n": len(names)},
        notes=notes,
        names=names,
        decisions=decisions,
    )


def _kind(member: str) -> str:
    archives = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar")
    inside = member.lower().endswith(archives)
    return "archives in it, which are not opened: unpack them" if inside else "members that are no images"


def _content(path: Path, names: list[str]) -> str:
    """128 bits of the bytes of all files, hexadecimal; of their checksums where an archive has them."""
    digest = xxhash.xxh3_128()
    for name in names:
        if path.is_dir():
            try:
                digest.update(xxhash.xxh3_128_digest(read_image(path, name)))
            except BadImage:
                digest.update(b"unreadable")
        else:
            digest.update(stamp_of_image(path, name).to_bytes(8, "little"))
    return digest.hexdigest()
