"""The batches of a split whose images all lie in the memory of one device: only their indices travel there."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.io.address import Location
from data_shards.io.errors import InputError
from data_shards.io.partition import partition
from data_shards.manifest import Manifest
from data_shards.stream.loader import flipped
from data_shards.stream.order import EpochOrder
from data_shards.stream.stream import Batch, ShardStream

_IMAGES_AT_ONCE = 4096


def bytes_of_split(manifest: Manifest, split: str) -> int:
    """What its images take as pixels."""
    return manifest.num_samples(split) * int(np.prod(manifest.image_shape))


class ResidentStream:
    """The batches of `ShardStream` with the same arguments, image for image; `Batch.image` is on `device`.

    All images are read before the first batch. Raises what `ShardStream` raises.
    """

    def __init__(
        self,
        place: str | Path | Location,
        *,
        device: torch.device,
        split: str,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        position: int = 0,
        max_substitutes: int = 0,
        flip: bool = False,
        manifest: Manifest | None = None,
    ) -> None:
        self.position, self.substituted = position, 0
        self._device, self._split, self._global_batch, self._seed, self._flip = device, split, global_batch, seed, flip
        self._rank, self._world_size, self._max_substitutes = rank, world_size, max_substitutes
        self.manifest = Manifest.load(Location.of(place)) if manifest is None else manifest
        self.num_samples = self.manifest.num_samples(split)
        # A sample that cannot be read has the same replacement each time; how many a run may have is counted below.
        self._source = ShardStream(
            place,
            split=split,
            global_batch=_IMAGES_AT_ONCE,
            shuffle=False,
            max_substitutes=self.num_samples,
            manifest=self.manifest,
        )
        self._images: Tensor | None = None
        self._samples: NDArray[np.int64] = np.arange(self.num_samples)
        order = functools.partial(EpochOrder, self.manifest, split=split, seed=seed)
        self._order_of = functools.lru_cache(maxsize=2)(lambda epoch: order(epoch=epoch))

    @property
    def is_remote(self) -> bool:
        """Whether a batch may be waited for until a server answers, as all images are before the first one."""
        return self._source.is_remote and self._images is None

    @property
    def while_waiting(self) -> Callable[[], None] | None:
        """As of `ShardStream`."""
        return self._source.while_waiting

    @while_waiting.setter
    def while_waiting(self, action: Callable[[], None] | None) -> None:
        self._source.while_waiting = action

    def _read(self) -> Tensor:
        """(N, C, H, W) uint8 on the device, in source order."""
        if self._images is None:
            shape = (self.num_samples, *self.manifest.image_shape)
            images = torch.empty(shape, dtype=torch.uint8, device=self._device)
            self._source.position = 0
            for batch in self._source:
                stop = batch.start + len(batch.image)
                images[batch.start : stop] = batch.image.to(self._device)
                self._samples[batch.start : stop] = batch.index.numpy()
            self._source.close()
            self._images = images
        return self._images

    def __iter__(self) -> Iterator[Batch]:
        images = self._read()
        epoch, start = divmod(self.position, self.num_samples)
        while start < self.num_samples:
            stop = min(start - start % self._global_batch + self._global_batch, self.num_samples)
            mine = partition(stop - start, self._rank, self._world_size)
            rows = self._order_of(epoch)(start + mine.start, start + mine.stop)
            samples = self._samples[rows]
            replaced = rows[samples != rows]
            self.substituted += len(replaced)
            if self.substituted > self._max_substitutes:
                raise InputError(
                    f"sample {replaced[0]} of split {self._split!r} cannot be read ({self.substituted} such images "
                    f"where {self._max_substitutes} are allowed)"
                )
            self.position = epoch * self.num_samples + stop
            yield Batch(
                image=self._picked(images, rows, samples, epoch),
                index=torch.from_numpy(samples),
                start=epoch * self.num_samples + start,
                count=stop - start,
                epoch=epoch,
                substituted=len(replaced),
            )
            start = stop

    def _picked(self, images: Tensor, rows: NDArray[np.int64], samples: NDArray[np.int64], epoch: int) -> Tensor:
        picked = images.index_select(0, self._sent(torch.from_numpy(rows)))
        if not self._flip:
            return picked
        turned = flipped(samples, f"{self.manifest.hash}|{self._split}", self._seed, epoch)
        return torch.where(self._sent(torch.from_numpy(turned))[:, None, None, None], picked.flip(3), picked)

    def _sent(self, values: Tensor) -> Tensor:
        """Without a wait of the host for the device."""
        return values.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else values
