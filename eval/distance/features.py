"""Images through an extractor into statistics, on every process of a job.

Those of real images are made once for each data set, split and extractor, and kept in the shared cache.
"""

from collections.abc import Mapping
from typing import Any

import torch

from data_shards.io.address import Location
from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from eval.distance.extractors.extractor import Extractor
from eval.distance.statistics import FeatureStatistics
from eval.image_sets.image_set import ImageBlocks
from eval.images.blocks import BLOCK, blocks_of, part_blocks
from eval.images.sources import from_shards
from eval.protocol import fingerprint
from trainer.full_precision import allowed_precision
from trainer.process_group import Ranks

# Blocks whose features are summed at a time: one large product is faster than many small ones.
_STACK = 16


def extract(
    source: ImageBlocks,
    extractor: Extractor,
    ranks: Ranks,
    *,
    n: int,
    title: str,
    protocol: Mapping[str, Any],
    keep_features: bool = False,
    part: int = 0,
    parts: int = 1,
) -> FeatureStatistics:
    """The statistics of part `part` of a set of n images, the same on every process; each image is on one of them.

    title: of the progress bar; protocol: stored with the statistics; keep_features: keep the vectors as well.
    """
    require_one_extractor(extractor, ranks)
    statistics = FeatureStatistics(extractor.dim, protocol=protocol, keep_features=keep_features)
    mine = blocks_of(n, ranks, part=part, parts=parts)
    waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add() -> None:
        if waiting:
            ids, features = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
            statistics.update(features, ids)
            waiting.clear()

    all_blocks = part_blocks(n, part, parts)
    total = min(n, all_blocks.stop * BLOCK) - all_blocks.start * BLOCK
    with Progress(title, total, show=ranks.is_main) as bar:
        for done, (ids, images) in enumerate(source(mine), start=1):
            waiting.append((ids, extractor(images)))
            if len(waiting) == _STACK:
                add()
            bar.update(min(total, done * BLOCK * ranks.world_size))
        add()
    return add_over_ranks(statistics, ranks)


def features_of(extractor: Extractor) -> dict[str, Any]:
    """What features of the same images depend on, as the key of a cache has it."""
    precision, _ = allowed_precision(extractor.device)
    # Keys of earlier versions say no precision, and were of the full one unless a program had lowered it.
    lowered = {} if precision == "highest" else {"precision": precision}
    return {"extractor": dict(extractor.description), **lowered}


def require_one_extractor(extractor: Extractor, ranks: Ranks) -> None:
    """Raises InputError on every process where they do not have the same extractor."""
    if not ranks.equal(int(fingerprint(dict(extractor.description)), 16) >> 2):
        raise InputError(
            f"{extractor.description['name']} is another extractor on some processes; all must load the same weights",
            parameter="extractor",
        )


def add_over_ranks(statistics: FeatureStatistics, ranks: Ranks) -> FeatureStatistics:
    """The statistics of the images of all processes, on every process."""
    if ranks.world_size == 1:
        return statistics
    counts = torch.zeros(ranks.world_size, dtype=torch.int64)
    counts[ranks.rank] = statistics.n
    counts = ranks.sum_(counts.to(ranks.device)).cpu()
    start, stop, total = int(counts[: ranks.rank].sum()), int(counts[: ranks.rank + 1].sum()), int(counts.sum())

    def gathered(rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, one after the other."""
        room = torch.zeros(total, *rows.shape[1:], dtype=rows.dtype, device=ranks.device)
        room[start:stop] = rows.to(ranks.device)
        return ranks.sum_(room).cpu()

    return FeatureStatistics.from_sums(
        ids=gathered(statistics.ids),
        total=ranks.sum_(statistics.sum.to(ranks.device)).cpu(),
        outer=ranks.sum_(statistics.outer.to(ranks.device)).cpu(),
        features=None if statistics.features is None else gathered(statistics.features),
        protocol=statistics.protocol,
    )


def reference_statistics(
    shards: Location,
    manifest: Manifest,
    split: str,
    extractor: Extractor,
    ranks: Ranks,
    *,
    keep_features: bool = False,
) -> FeatureStatistics:
    """The statistics of a whole split, of exactly the pixels that the model saw.

    They come from the cache where the same were made before. Raises InputError for a split that is not there.
    """
    if split not in manifest.splits:
        raise InputError(
            f"{split!r} is not in {shards.address}; use one of {', '.join(manifest.splits)}", parameter="split"
        )
    require_one_extractor(extractor, ranks)
    protocol = {"data": manifest.hash, "split": split, **features_of(extractor)}
    path = cache_folder("references") / f"{fingerprint(protocol)}{'-features' if keep_features else ''}.safetensors"
    # All take the same way, even if the file appears meanwhile or lies in the cache of one machine only.
    if not ranks.any(not path.exists()):
        return FeatureStatistics.load(path)
    n = manifest.num_samples(split)
    source = from_shards(shards, split, n=n)
    title = f"features of the {n:,} real images of split {split}"
    made = extract(source, extractor, ranks, n=n, title=title, protocol=protocol, keep_features=keep_features)
    if ranks.is_main:
        made.save(path)
    return made
