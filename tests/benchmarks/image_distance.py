"""The distance of images in memory to a split, as `python -m eval fid` measures it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.extractor import Extractor
from eval.distance.features import extract, reference_statistics
from eval.distance.measures.frechet import frechet_distance
from eval.distance.statistics import FeatureStatistics
from eval.images.blocks import BLOCK, block_ids
from eval.images.sources import ImageSource, block_latents, mixture_sampler, to_8_bits
from eval.run import MeasuredRun
from trainer.process_group import Ranks

SAMPLES = 10_000


def latents_of_samples(run: MeasuredRun, components: int) -> Tensor:
    """The latents of the samples that `python -m eval fid` draws from a full mixture, (SAMPLES, D)."""
    sampler = mixture_sampler(run.mixture(components, "full").parameters)
    return torch.cat([block_latents(sampler, 0, block) for block in range(-(-SAMPLES // BLOCK))])[:SAMPLES]


def distances_to_test(
    run: MeasuredRun, images: Tensor, extractors: Sequence[str], title: str, ranks: Ranks
) -> dict[str, float]:
    """The distance of images to the run's test images by each extractor, to one decimal place."""
    found = {}
    for name in extractors:
        extractor = extractor_by_name(name, ranks.device)
        reference = reference_statistics(run.config.data.location, run.manifest, "test", extractor, ranks)
        found[name] = round(distance_of(images, extractor, reference, f"{title}, {name}", ranks), 1)
    return found


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
