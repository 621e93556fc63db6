"""Small data sets: one like CelebA's as its authors distribute it, and one of arrays with uneven shards."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data_shards.build import BuildOptions, build
from data_shards.manifest import Manifest
from data_shards.pixels import BadImage, Pixels
from data_shards.sources.sample import Sample

CELEBA_SPLITS = {"train": 240, "valid": 30, "test": 30}
ATTRIBUTE_NAMES = [f"Attribute_{number}" for number in range(40)]


def jpeg_of_celeba_size(number: int) -> bytes:
    """178 x 218 pixels, 3 channels, smooth, different for each number."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((178, 218), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_celeba(folder: Path) -> Path:
    """300 images with partition and attribute files in the original's form."""
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, sum(CELEBA_SPLITS.values()) + 1)]
    splits = [number for number, count in enumerate(CELEBA_SPLITS.values()) for _ in range(count)]
    rng = np.random.default_rng(7)
    rows = rng.choice(["-1", " 1"], (len(names), 40))
    for number, name in enumerate(names):
        (images / name).write_bytes(jpeg_of_celeba_size(number))
    (folder / "list_eval_partition.txt").write_text(
        "".join(f"{name} {split}\n" for name, split in zip(names, splits, strict=True))
    )
    lines = [f"{name} {' '.join(row)}" for name, row in zip(names, rows, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(ATTRIBUTE_NAMES), *lines]) + "\n")
    return folder


class ArraySource:
    """Random images in memory; those in `bad` cannot be read, which makes shards uneven."""

    name = "arrays"

    def __init__(self, counts: dict[str, int], *, shape=(4, 6, 3), bad=frozenset()):
        rng = np.random.default_rng(0)
        self.images = {split: rng.integers(0, 256, (n, *shape), dtype=np.uint8) for split, n in counts.items()}
        self.keys = {split: [f"{split}_{index:05d}" for index in range(n)] for split, n in counts.items()}
        self._bad = bad

    def read(self, split: str, index: int) -> Sample:
        if (split, index) in self._bad:
            raise BadImage("made to fail")
        return Sample(image=self.images[split][index], extras={"cls": str(index % 10).encode()})

    def fingerprint(self) -> str:
        return "arrays"

    def good(self, split: str) -> np.ndarray:
        """The readable images, N x H x W x C."""
        rows = [index for index in range(len(self.images[split])) if (split, index) not in self._bad]
        return self.images[split][rows]


def build_arrays(out: Path, source: ArraySource, *, shard_images: int, window: int, **options) -> Manifest:
    """The shards of `source` in `out`."""
    _, height, width, channels = next(iter(source.images.values())).shape
    made = build(
        source,
        Pixels(channels=channels, height=height, width=width),
        out,
        BuildOptions(shard_images=shard_images, window=window, skip_bad=10_000, **options),
    )
    assert made is not None
    return made
