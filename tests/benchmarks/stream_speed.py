"""How fast the stream reads, as ratios to the least that any reader must do. python tests/benchmarks/stream_speed.py

Each figure is images per second of CPU time, all threads together, on one core, with the files in the page cache. A
machine that others use too changes its speed from second to second. So all ways take turns in short rounds, every other
round backwards, a ratio is that of two neighbours within a round, and the median over the rounds is printed. Freed
memory is kept in the process, as the trainer does: otherwise it is chance whether a way gets the memory of its last
batch again, or pages that the system has to clear first, which takes a third of the time.

raw, floor          a bare loop: one pread an image into the same order of images, np.frombuffer, np.stack a batch
raw, stream         ShardStream over raw 64 x 64 shards, which also checks every image against its checksum
webdataset          webdataset.WebDataset(...).decode("pil") over 178 x 218 JPEGs, crop 140, resize to 64 x 64, stacked
original, floor     simplejpeg.decode_jpeg of bytes that lie in memory, the same crop and resize, np.stack a batch
original, stream    ShardStream over the same JPEGs in shards of encoding `original`
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import webdataset
from PIL import Image

from data_shards.build.builder import BuildOptions, build
from data_shards.manifest import Manifest
from data_shards.pixels import Pixels, npy_header
from data_shards.shard_index import parse_index
from data_shards.sources.source import Sample, Source
from data_shards.stream.order import EpochOrder
from data_shards.stream.stream import ShardStream
from trainer.engines.cpu import keep_freed_memory

IMAGES, BATCH, ROUNDS = 1000, 250, 20
CROP, SIZE = 140, 64


class JpegSource(Source):
    """JPEGs of CelebA's size, about 10 KB each; 200 different ones."""

    name = "benchmark"

    def __init__(self) -> None:
        self.keys = {"train": [f"{index:06d}" for index in range(IMAGES)]}
        self._files = [_jpeg(number) for number in range(200)]

    def read(self, split: str, index: int) -> Sample:
        return Sample(image=self._files[index % 200], extension="jpg")

    def stamps(self, split: str) -> np.ndarray:
        return np.arange(IMAGES, dtype=np.uint64) % np.uint64(200)


def _jpeg(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (28, 23, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((178, 218), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def pixels(encoding: str) -> Pixels:
    return Pixels(channels=3, height=SIZE, width=SIZE, crop=CROP, resize=True, encoding=encoding)


def cropped(image: np.ndarray) -> np.ndarray:
    """Centre crop and resize of an H x W x C array by Pillow, as C x H x W."""
    top, left = (image.shape[0] - CROP) // 2, (image.shape[1] - CROP) // 2
    square = Image.fromarray(np.ascontiguousarray(image[top : top + CROP, left : left + CROP]))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def members(shards: Path) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Open shards, and for the samples in the order of the first epoch: which shard, offset and size."""
    manifest = Manifest.load(shards)
    found = []
    for number, shard in enumerate(manifest.shards):
        data = (shards / shard.index_name).read_bytes()
        index = parse_index(data, shard=shard.name, sha256=shard.index_sha256)
        found.append(np.stack([np.full(len(index), number), index.offsets, index.sizes]))
    order = EpochOrder(manifest, split="train", seed=0, epoch=0)(0, IMAGES)
    return [os.open(shards / shard.name, os.O_RDONLY) for shard in manifest.shards], *np.concatenate(found, 1)[:, order]


def raw_floor(shards: Path) -> Callable[[], Iterator[np.ndarray]]:
    files, numbers, offsets, _ = members(shards)
    handles = [files[number] for number in numbers]
    starts = (offsets + len(npy_header((3, SIZE, SIZE)))).tolist()
    size = 3 * SIZE * SIZE

    def epoch() -> Iterator[np.ndarray]:
        for first in range(0, IMAGES, BATCH):
            yield np.stack(
                [
                    np.frombuffer(os.pread(handles[place], size, starts[place]), np.uint8).reshape(3, SIZE, SIZE)
                    for place in range(first, min(first + BATCH, IMAGES))
                ]
            )

    return epoch


def original_floor(shards: Path) -> Callable[[], Iterator[np.ndarray]]:
    files, numbers, offsets, sizes = members(shards)
    data = [os.pread(files[n], size, offset) for n, offset, size in zip(numbers, offsets, sizes, strict=True)]

    def epoch() -> Iterator[np.ndarray]:
        for first in range(0, IMAGES, BATCH):
            yield np.stack([cropped(simplejpeg.decode_jpeg(jpeg)) for jpeg in data[first : first + BATCH]])

    return epoch


def streamed(shards: Path) -> Callable[[], Iterator[np.ndarray]]:
    def epoch() -> Iterator[np.ndarray]:
        for batch in ShardStream(shards, split="train", global_batch=BATCH):
            yield batch.image.numpy()

    return epoch


def by_webdataset(shards: Path) -> Callable[[], Iterator[np.ndarray]]:
    urls = [str(shards / shard.name) for shard in Manifest.load(shards).shards]

    def epoch() -> Iterator[np.ndarray]:
        samples = webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg")
        images = samples.map_tuple(lambda picture: cropped(np.asarray(picture)))
        for (batch,) in images.batched(BATCH):
            yield np.stack(list(batch))

    return epoch


def images_per_cpu_second(epoch: Callable[[], Iterator[np.ndarray]]) -> float:
    began = time.process_time()
    count = sum(len(batch) for batch in epoch())
    assert count == IMAGES
    return count / (time.process_time() - began)


def main() -> None:
    """Builds the shards, measures, prints."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        shards = {encoding: Path(folder, encoding) for encoding in ("raw", "original")}
        for encoding, out in shards.items():
            build(JpegSource(), pixels(encoding), out, BuildOptions())
        ways = {
            "raw, floor": raw_floor(shards["raw"]),
            "raw, stream": streamed(shards["raw"]),
            "webdataset": by_webdataset(shards["original"]),
            "original, floor": original_floor(shards["original"]),
            "original, stream": streamed(shards["original"]),
        }
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(ROUNDS):
            for name, epoch in list(ways.items())[:: -1 if round_ % 2 else 1]:
                rates[name].append(images_per_cpu_second(epoch))

    def ratio(name: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[name], rates[to], strict=True))

    for name, values in rates.items():
        print(f"{name:18s} {statistics.median(values):10,.0f} images per CPU-second")
    print(f"raw: {ratio('raw, stream', 'raw, floor'):.2f} of the floor (wanted: 0.7)")
    print(f"raw: {ratio('raw, stream', 'webdataset'):.1f} times the webdataset pipeline (wanted: 20)")
    print(f"original: {ratio('original, stream', 'original, floor'):.2f} of the floor (wanted: 0.9)")


if __name__ == "__main__":
    main()
