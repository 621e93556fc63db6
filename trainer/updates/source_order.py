"""One pass over a split in source order, each process with its share, for measurements between updates."""

from data_shards.stream.stream import ShardStream
from trainer.config.sections import DataConfig
from trainer.process_group import Ranks


def in_source_order(data: DataConfig, split: str, ranks: Ranks) -> ShardStream:
    """The stream of a split's global batches, unshuffled: the same images in the same places on any world size."""
    return ShardStream(
        data.shards,
        split=split,
        global_batch=data.global_batch,
        rank=ranks.rank,
        world_size=ranks.world_size,
        shuffle=False,
        max_substitutes=data.substitutes,
    )
