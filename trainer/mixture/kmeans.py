"""k-means on any number of processes: assignment by a search index, centroids by an all-reduced float64 sum.

faiss's own Kmeans runs in one process, and by default on a sample of 256 points a centroid; its index, which takes
nearly all the time, is used here too. A checkpoint between iterations lets a killed fit continue.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import raise_machine_fault
from trainer.mixture.nearest import Assignment, squared_distances
from trainer.mixture.points import place_among_ranks
from trainer.mixture.splitting import parts_of, splits
from trainer.process_group import Ranks
from trainer.run_folder.tensor_file import read_tensors

# Points a centroid that k-means++ draws from; its cost is their number times K.
_SEEDING_POINTS = 16
# Distances that cost nothing: with few centroids more points are drawn from.
_SEEDING_DISTANCES = 500_000
_MOST_CAREFUL_SEEDS = 500
# After so many iterations all points are compared with all centroids, so that a fit that continues from there is the
# same to the last digit; between, `Assignment` does with fewer.
_ITERATIONS_BETWEEN_SEARCHES = 10


class KMeansCheckpoint:
    """One file with the centroids after some iterations, which are all that k-means needs to continue.

    fingerprint: settings and data, which must agree for the file to be used; every_seconds: least time between writes.
    """

    def __init__(self, file: Path, fingerprint: dict[str, Any], ranks: Ranks, every_seconds: float) -> None:
        self._file, self._ranks, self._every_seconds = file, ranks, every_seconds
        self._fingerprint = json.dumps(fingerprint, sort_keys=True)
        self._saved = time.monotonic()

    def save(self, centroids: Tensor, iteration: int) -> None:
        """Writes centroids (K, D) after `iteration` iterations where the last file is old enough."""
        if not self._ranks.is_main or time.monotonic() - self._saved < self._every_seconds:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"fingerprint": self._fingerprint, "iteration": str(iteration)}
        atomic.write_bytes(self._file, save({"centroids": centroids.cpu().contiguous()}, metadata))
        self._saved = time.monotonic()

    def resume(self, shape: tuple[int, int]) -> tuple[Tensor, int] | None:
        """Centroids of that shape and the iterations done, as the first process finds them, or None."""
        state = torch.zeros(shape[0] * shape[1] + 2, dtype=torch.float64, device=self._ranks.device)
        if self._ranks.is_main and self._file.exists():
            try:
                tensors, metadata = read_tensors(self._file)
                if metadata["fingerprint"] == self._fingerprint:
                    state[:-2] = tensors["centroids"].flatten().to(state.device)
                    state[-2:] = torch.tensor([int(metadata["iteration"]), 1.0])
            except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
                raise_machine_fault(error, self._file)
                state.zero_()
                print(f"warning: {self._file}: a damaged checkpoint is passed over ({error})", file=sys.stderr)
        self._ranks.sum_(state)
        return (state[:-2].view(shape), int(state[-2])) if state[-1] else None

    def remove(self) -> None:
        """Deletes the file; called by the first process once a later checkpoint replaces it."""
        self._file.unlink(missing_ok=True)


def kmeans(
    x: Tensor,
    k: int,
    *,
    iterations: int,
    init: str,
    generator: torch.Generator,
    ranks: Ranks,
    checkpoint: KMeansCheckpoint | None = None,
) -> tuple[Tensor, Tensor]:
    """Clusters the points of all processes. x: (n, D), this process's slice. generator: the same on each process.

    checkpoint: written after every few iterations, and continued from where it exists.
    Returns centroids (K, D) float64 and this process's labels (n,) int64. An empty cluster takes part of a large one
    (its centroid, moved by a thousandth of the spread); some may stay empty where points are duplicated. Points in
    float64 are compared in float64, by differences; all others in float32, by a search index.
    """
    points = x if x.dtype == torch.float64 else x.to(torch.float32)
    resumed = None if checkpoint is None else checkpoint.resume((k, x.shape[1]))
    centroids, done = (_seeds(points, k, init, generator, ranks), 0) if resumed is None else resumed
    assignment = Assignment(points, centroids)
    for iteration in range(done, iterations):
        sums = torch.zeros(k, 1 + x.shape[1], dtype=torch.float64, device=x.device)
        sums[:, 1:].index_add_(0, assignment.labels, x.double())
        sums[:, 0] = torch.bincount(assignment.labels, minlength=k)
        ranks.sum_(sums)
        moved = _repaired(sums)
        if torch.equal(moved, centroids):
            break
        centroids = moved
        if (iteration + 1) % _ITERATIONS_BETWEEN_SEARCHES:
            assignment.move(centroids)
            continue
        assignment.renew(centroids)
        if checkpoint is not None:
            checkpoint.save(centroids, iteration + 1)
    return centroids, assignment.labels


def _seeds(points: Tensor, k: int, init: str, generator: torch.Generator, ranks: Ranks) -> Tensor:
    """The first centroids (K, D): points of all processes, see `Settings.init_params`."""
    total, first = place_among_ranks(len(points), ranks)
    chosen = torch.randperm(total, generator=generator)
    if init == "k-means++" or (init == "auto" and k <= _MOST_CAREFUL_SEEDS):
        pool = _gather(points, chosen[: max(k * _SEEDING_POINTS, _SEEDING_DISTANCES // k)], first, ranks)
        return _plus_plus(pool, k, generator)
    return _gather(points, chosen[:k], first, ranks)


def _gather(points: Tensor, rows: Tensor, first: int, ranks: Ranks) -> Tensor:
    """The points at `rows` of all processes' points, (m, D) float64, on each process."""
    gathered = torch.zeros(len(rows), points.shape[1], dtype=torch.float64, device=points.device)
    mine = ((rows >= first) & (rows < first + len(points))).nonzero()[:, 0]
    gathered[mine.to(points.device)] = points[(rows[mine] - first).to(points.device)].double()
    return ranks.sum_(gathered)


def _plus_plus(pool: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Seeds (K, D) drawn one after another with probability proportional to the squared distance to the nearest.

    Of a few draws for each seed the one that leaves the least distance is kept (greedy k-means++).
    """
    draws = torch.rand(k, 2 + int(math.log(k)), generator=generator, dtype=torch.float64).to(pool.device)

    first = (draws[0, :1] * len(pool)).long()
    chosen = [first]
    left = squared_distances(pool[first], pool)[0]  # (n,)
    for draw in draws[1:]:
        cumulative = left.cumsum(0)
        places = torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_(max=len(pool) - 1)
        each = torch.minimum(left, squared_distances(pool[places], pool))  # (draws, n)
        best = each.sum(1).argmin(0, keepdim=True)  # (1,)
        chosen.append(places[best])
        left = each[best][0]
    return pool[torch.cat(chosen)]


def _repaired(sums: Tensor) -> Tensor:
    """Centroids (K, D) from counts and sums (K, 1 + D); each empty cluster takes part of one of the largest."""
    counts = sums[:, 0]
    centroids = sums[:, 1:] / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        step = 1e-3 * centroids[counts > 0].std(0, correction=0)
        parts = splits(counts.tolist(), len(empty))
        for donor, places in parts_of(parts, empty.tolist()):
            offsets = torch.linspace(-1, 1, len(places) + 1, dtype=step.dtype, device=step.device)
            centroids[[donor, *places]] = centroids[donor].clone() + offsets[:, None] * step
    return centroids
