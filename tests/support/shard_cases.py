"""A small data set of arrays with uneven shards."""

from pathlib import Path

import numpy as np

from data_shards.build.builder import BuildOptions, build
from data_shards.decoding.bad_image import BadImage
from data_shards.manifest import Manifest
from data_shards.pixels import Pixels
from data_shards.sources.source import Sample, Source, content_stamp


class ArraySource(Source):
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

    def stamps(self, split: str) -> np.ndarray:
        """Of the content."""
        rows = np.arange(len(self.keys[split]))
        return np.array([content_stamp(self.reader(split, rows), int(row)) for row in rows], np.uint64)

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
