"""What a build of shards takes, before it is started."""

import math
import shutil
from pathlib import Path

from data_shards.build.builder import BuildOptions, plan_shards
from data_shards.io.errors import InputError
from data_shards.io.progress import duration
from data_shards.pixels import Pixels
from data_shards.sources.sample import Source

# JPEGs of 178 x 218 pixels that one core of 2021 decodes, crops and resizes to 64 x 64 in a second.
_IMAGES_PER_CORE_SECOND = 1800
# The header of a tar member and its padding, twice with the attributes.
_BYTES_BESIDE_PIXELS = 1024


def existing_parent(path: Path) -> Path:
    """The nearest folder at or above `path` that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def show_plan(source: Source, pixels: Pixels, out: Path, options: BuildOptions) -> None:
    """Prints images, shards, time and disk. Raises InputError where the disk has too little room for raw pixels."""
    images = {split: len(keys) for split, keys in source.keys.items()}
    total = sum(images.values())
    shards = len(plan_shards(source, options.shard_images))
    needed = total * (math.prod(pixels.shape) + _BYTES_BESIDE_PIXELS)
    free = shutil.disk_usage(existing_parent(out)).free
    raw = pixels.encoding == "raw"
    print(f"images   {', '.join(f'{split} {count:,}' for split, count in images.items())}")
    print(f"shards   {shards} in {out}")
    print(f"time     {duration(total / (options.processes * _IMAGES_PER_CORE_SECOND))} on {options.processes} cores")
    print(f"disk     {'' if raw else 'at most about '}{needed / 1e9:.2g} GB; {free / 1e9:.4g} GB are free")
    if raw and needed > free:
        raise InputError(f"--out: {needed / 1e9:.2g} GB are needed in {out}, {free / 1e9:.2g} GB are free")
