"""The training images and training codes that are nearest to given ones."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from eval.images.subset import gathered
from trainer.process_group import Ranks

_BATCH = 512


class Nearest(NamedTuple):
    """The k nearest training images of Q images, nearest first, equal distances in the order of the split."""

    distance: Tensor
    """Euclidean, over all pixels on the [0, 1] scale, (Q, k) float32."""
    place: Tensor
    """Index within the training split, (Q, k) int64."""
    image: Tensor
    """(Q, k, C, H, W) uint8."""


def _best(candidates: Nearest, k: int) -> Nearest:
    """The k nearest among candidates (Q, more)."""
    order = candidates.distance.argsort(dim=1, stable=True)[:, :k]  # (Q, k)
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Nearest(candidates.distance[rows, order], candidates.place[rows, order], candidates.image[rows, order])


def nearest_images(queries: Tensor, shards: str | Path, split: str, *, k: int, ranks: Ranks) -> Nearest:
    """Searches a whole split, which is divided among the processes. queries: (Q, C, H, W) float32 in [0, 1].

    The result is the same on every process.
    """
    total = Manifest.load(shards).num_samples(split)
    mine = ranks.partition(-(-total // _BATCH))
    start, stop = mine.start * _BATCH, min(mine.stop * _BATCH, total)
    count, shape = len(queries), queries.shape[1:]
    flat = queries.flatten(1).to(ranks.device)
    # Places that no image takes stay infinitely far.
    best = Nearest(
        torch.full((count, k), torch.inf, device=ranks.device),
        torch.zeros(count, k, dtype=torch.int64, device=ranks.device),
        torch.zeros(count, k, *shape, dtype=torch.uint8, device=ranks.device),
    )
    stream = ShardStream(shards, split=split, global_batch=_BATCH, position=start, shuffle=False)
    with Progress("nearest training images", stop - start, show=ranks.is_main) as bar:
        for batch in stream if start < stop else ():
            images = batch.image.to(ranks.device)
            distance = torch.cdist(flat, images.flatten(1).float() / 255)  # (Q, B)
            place = batch.index.to(ranks.device).expand(count, -1)
            near = distance.argsort(dim=1, stable=True)[:, :k]  # (Q, k or fewer)
            found = Nearest(distance.gather(1, near), place.gather(1, near), images[near])
            best = _best(Nearest(*(torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))), k)
            bar.update(batch.start + batch.count - start)
            if batch.start + batch.count >= stop:
                break
    return _best(_all_ranks(best, ranks), k)


def _all_ranks(best: Nearest, ranks: Ranks) -> Nearest:
    """The candidates of all processes side by side, (Q, world_size * k)."""

    def together(mine: Tensor) -> Tensor:
        table = torch.zeros(ranks.world_size, *mine.shape, dtype=mine.dtype)
        table[ranks.rank] = mine.cpu()
        return torch.cat(list(gathered(table, ranks)), dim=1)

    return Nearest(*(together(part) for part in best))


def nearest_code_distance(z: Tensor, codes: Tensor) -> Tensor:
    """Euclidean distance from latents z, (N, D), to the nearest of the codes, (M, D). Returns (N,)."""
    return torch.cat([torch.cdist(part, codes).amin(1) for part in z.split(256)])


def chance_nearer(ours: Tensor, others: Tensor) -> float:
    """Probability that one of `ours`, (N,), is smaller than one of `others`, (M,); ties count half. 0.5: no difference.

    The Mann-Whitney statistic over its largest value; on nearest distances it detects copies (Meehan et al. 2020).
    """
    smaller = (ours[:, None] < others).double() + 0.5 * (ours[:, None] == others)
    return smaller.mean().item()
