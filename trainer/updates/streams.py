"""Where the batches of a training, and of the passes between its updates, come from."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.resident import ResidentStream, bytes_of_split
from data_shards.stream.stream import Batch, ShardStream
from trainer.config.automatic import reader_processes
from trainer.config.config import Config
from trainer.config.sections import DataConfig
from trainer.device import local_processes
from trainer.process_group import Ranks

_LARGEST_PART = 0.25
"""Of a GPU's free memory, for `auto`: what networks take is not known before the first update."""


@dataclass(frozen=True)
class Passes:
    """Passes over the splits of a data set, in source order. batches: those of a stream, with what interrupts them."""

    data: DataConfig
    manifest: Manifest | None = None
    """Of the shards, where it has been read; None reads it at each pass."""
    batches: Callable[[ShardStream], Iterable[Batch]] = iter

    def over(self, split: str, ranks: Ranks, *, global_batch: int | None = None) -> Iterable[Batch]:
        """This process's parts of the batches of a split. global_batch: None takes that of training."""
        return self.batches(
            ShardStream(
                self.data.location,
                split=split,
                global_batch=global_batch or self.data.global_batch,
                rank=ranks.rank,
                world_size=ranks.world_size,
                shuffle=False,
                max_substitutes=self.data.substitutes,
                manifest=self.manifest,
            )
        )


def training_stream(config: Config, manifest: Manifest, ranks: Ranks, position: int) -> ShardStream | ResidentStream:
    """This process's part of the global batches from `position` on, the same batches wherever they come from.

    Raises InputError where images are to lie in the memory of the device and do not fit.
    """
    data = config.data
    common: dict[str, Any] = {"seed": config.seed, "position": position, "flip": data.flip}
    common |= {"rank": ranks.rank, "world_size": ranks.world_size, "max_substitutes": data.substitutes}
    common |= {"split": data.train_split, "global_batch": data.global_batch, "manifest": manifest}
    if _is_resident(data, manifest, ranks.device):
        return ResidentStream(data.location, device=ranks.device, **common)
    workers = reader_processes(
        data,
        raw=manifest.pixels.encoding == "raw",
        device=ranks.device.type,
        processors=len(os.sched_getaffinity(0)) // local_processes(),
    )
    return ShardStream(data.location, workers=workers, **common)


def _is_resident(data: DataConfig, manifest: Manifest, device: torch.device) -> bool:
    if data.on_device is False or (data.on_device == "auto" and device.type != "cuda"):
        return False
    needed = bytes_of_split(manifest, data.train_split)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if data.on_device == "auto":
        return needed <= _LARGEST_PART * free
    if needed > free:
        raise InputError(
            f"the images of split {data.train_split!r} take {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; "
            "use auto or false",
            parameter="data.on_device",
        )
    return True
