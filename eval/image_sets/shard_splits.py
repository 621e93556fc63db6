"""A split of a shard set of this program."""

from collections.abc import Iterator

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from eval.image_sets.image_set import ImageSet
from eval.images.sources import from_shards


def shard_split(word: str, *, n: int | None, seed: int) -> ImageSet:
    """n images of FOLDER/SPLIT, the first of a seeded shuffle; all, in source order, where n is None.

    FOLDER may be an address. Raises InputError where there is no such folder or split, or fewer images.
    """
    place, _, split = word.rpartition("/")
    if not place or not split:
        raise InputError(f"{word!r} has no split; give FOLDER/SPLIT, such as shards/mine/test")
    manifest = Manifest.load(place)
    if split not in manifest.splits:
        raise InputError(manifest.lacks(split, place))
    available = manifest.num_samples(split)
    if n is not None and n > available:
        raise InputError(f"{n} images, but {word} has {available}; use at most {available}", parameter="n")
    whole = n is None or n == available
    count = available if n is None else n
    source = from_shards(place, split, n=count, shuffle=not whole, seed=0 if whole else seed)

    def images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        for ids, pixels in source(blocks):
            yield ids, pixels.to(torch.uint8)

    identity = {"kind": "shards", "data": manifest.hash, "split": split, "n": count}
    return ImageSet(
        name=f"shards:{word}", n=count, images=images, identity=identity if whole else identity | {"seed": seed}
    )
