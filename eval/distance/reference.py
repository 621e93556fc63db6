"""Statistics of real images, made once for each data set, split and extractor, and kept in the shared cache."""

from collections.abc import Mapping
from typing import Any

from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from eval.distance.extractors.extractor import Extractor
from eval.distance.feature_extraction import extract
from eval.distance.statistics import FeatureStatistics
from eval.images.sources import from_shards
from eval.protocol import fingerprint
from trainer.process_group import Ranks


def reference_statistics(
    shards: str,
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
        raise InputError(f"{split!r} is not in {shards}; use one of {', '.join(manifest.splits)}", parameter="split")
    protocol: Mapping[str, Any] = {"data": manifest.hash, "split": split, "extractor": dict(extractor.description)}
    path = cache_folder("references") / f"{fingerprint(protocol)}{'-features' if keep_features else ''}.safetensors"
    # The first process alone decides, so that all take the same way even if the file appears meanwhile.
    if ranks.any(ranks.is_main and path.exists()):
        return FeatureStatistics.load(path)
    n = manifest.num_samples(split)
    source = from_shards(shards, split, n=n)
    title = f"features of the {n:,} real images of split {split}"
    made = extract(source, extractor, ranks, n=n, title=title, protocol=protocol, keep_features=keep_features)
    if ranks.is_main:
        made.save(path)
    return made
