"""k-means on any number of processes: assignment by a faiss index, centroids by an all-reduced float64 sum.

faiss's own Kmeans sees one process, and samples 256 points a centroid unless told otherwise; the index, where all the
time goes, is the same.
"""

import math

import faiss
import torch
from torch import Tensor

from trainer.mixture.points import place_among_ranks
from trainer.mixture.start.kmeans_checkpoint import KMeansCheckpoint
from trainer.process_group import Ranks

# Points a centroid that k-means++ looks at; its cost is their number times K.
_SEEDING_POINTS = 16
_MOST_CAREFUL_SEEDS = 500


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

    checkpoint: where a run that was killed is taken up, and kept between iterations.
    Returns centroids (K, D) float64 and this process's labels (n,) int64. A cluster that goes empty takes half of the
    largest one (its centroid, moved by a thousandth of the spread); some may stay empty where points are doubled.
    """
    points = x.to(torch.float32)
    resumed = None if checkpoint is None else checkpoint.resume((k, x.shape[1]))
    centroids, done = (_seeds(points, k, init, generator, ranks), 0) if resumed is None else resumed
    labels = _assign(points, centroids)
    for iteration in range(done, iterations):
        sums = torch.zeros(k, 1 + x.shape[1], dtype=torch.float64, device=x.device)
        sums[:, 1:].index_add_(0, labels, x.double())
        sums[:, 0] = torch.bincount(labels, minlength=k)
        ranks.sum_(sums)
        moved = _repaired(sums)
        if torch.equal(moved, centroids):
            break
        centroids = moved
        labels = _assign(points, centroids)
        if checkpoint is not None:
            checkpoint.save(centroids, iteration + 1)
    return centroids, labels


def _seeds(points: Tensor, k: int, init: str, generator: torch.Generator, ranks: Ranks) -> Tensor:
    """The first centroids (K, D): points of all processes, see `Settings.init_params`."""
    total, first = place_among_ranks(len(points), ranks)
    chosen = torch.randperm(total, generator=generator)
    if init == "k-means++" or (init == "auto" and k <= _MOST_CAREFUL_SEEDS):
        pool = _gather(points, chosen[: max(k * _SEEDING_POINTS, 1024)], first, ranks)
        return _plus_plus(pool, k, generator)
    return _gather(points, chosen[:k], first, ranks)


def _assign(points: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid of each point, (n,) int64."""
    _, labels = search_index(centroids).search(points.cpu().contiguous().numpy(), 1)
    return torch.from_numpy(labels[:, 0]).to(points.device)


def search_index(vectors: Tensor) -> "faiss.Index":
    """An exact faiss index of vectors (K, D) under Euclidean distance: on the GPU where there is one."""
    index: faiss.Index = faiss.IndexFlatL2(vectors.shape[1])
    if vectors.is_cuda and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), vectors.device.index or 0, index)
    index.add(vectors.to("cpu", torch.float32).contiguous().numpy())
    return index


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
    norms = pool.square().sum(1)

    def distances(rows: Tensor) -> Tensor:
        """Squared distances (m, n) of the whole pool from some of its points."""
        products = pool[rows] @ pool.t()
        return (norms[rows, None] + norms - 2 * products).clamp_(min=0)

    chosen = [int(draws[0, 0] * len(pool))]
    nearest = distances(torch.tensor(chosen, device=pool.device))[0]
    for draw in draws[1:]:
        cumulative = nearest.cumsum(0)
        places = torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_(max=len(pool) - 1)
        left = torch.minimum(nearest, distances(places))  # (draws, n)
        best = int(left.sum(1).argmin())
        chosen.append(int(places[best]))
        nearest = left[best]
    return pool[torch.tensor(chosen, device=pool.device)]


def _repaired(sums: Tensor) -> Tensor:
    """Centroids (K, D) from counts and sums (K, 1 + D); each empty cluster is put beside the largest."""
    counts = sums[:, 0].clone()
    centroids = sums[:, 1:] / counts.clamp(min=1)[:, None]
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        largest = int(counts.argmax())
        step = 1e-3 * centroids[counts > 0].std(0, correction=0)
        centroids[empty] = centroids[largest] + step
        centroids[largest] = centroids[largest] - step
        counts[empty] = counts[largest] = counts[largest] / 2
    return centroids
