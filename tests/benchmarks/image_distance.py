"""The distance of images in memory to a split, as `python -m eval fid` measures it."""

from collections.abc import Iterator

from torch import Tensor

from eval.distance.extractors.extractor import Extractor
from eval.distance.features import extract
from eval.distance.measures.frechet import frechet_distance
from eval.distance.statistics import FeatureStatistics
from eval.images.blocks import block_ids
from eval.images.sources import ImageSource, to_8_bits
from trainer.process_group import Ranks


def distance_of(images: Tensor, extractor: Extractor, reference: FeatureStatistics, title: str, ranks: Ranks) -> float:
    """The distance of images, (N, C, H, W), cut to [0, 1], to the reference."""
    made = extract(as_source(to_8_bits(images)), extractor, ranks, n=len(images), title=title, protocol={})
    return frechet_distance(made.mean(), made.covariance(), reference.mean(), reference.covariance())


def as_source(images: Tensor) -> ImageSource:
    """Images in memory, (N, C, H, W) uint8, as a set that `extract` takes."""

    def blocks_of_images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        for block in blocks:
            ids = block_ids(block, len(images))
            yield ids, images[ids]

    return blocks_of_images
