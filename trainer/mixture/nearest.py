"""Nearest vectors, by Euclidean distance: a search index, and the nearest centroid of points from move to move."""

import faiss
import torch
from torch import Tensor

from trainer.mixture.working_memory import numbers_at_a_time

# Distances that are held at one time.
_DISTANCES = 4_000_000
# Above this part of the centroids a search among those that moved saves too little.
_LARGEST_SHARE = 0.8


class NearestIndex:
    """Exact search for nearest vectors.

    Vectors (K, D) to search among by Euclidean distance, in float32, on their device: by faiss on a CPU, on a GPU by
    one product a chunk of points, so that nothing leaves the device.
    """

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = vectors.float()
        self._index: faiss.Index | None = None
        if not vectors.is_cuda:
            self._index = faiss.IndexFlatL2(vectors.shape[1])
            self._index.add(self._vectors.contiguous().numpy())

    def search(self, x: Tensor, count: int) -> Tensor:
        """Numbers of the `count` vectors nearest to each point x (n, D), nearest first. Returns (n, count) int64."""
        return self.found(x, count)[0]

    def found(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The numbers of `search`, and how far the vectors are, (n, count).

        That is the squared distance, on a GPU less the point's own square, which is the same for all vectors.
        """
        if self._index is None:
            return by_products(x.float(), self._vectors, count)
        squares, numbers = self._index.search(x.float().contiguous().numpy(), count)
        return torch.from_numpy(numbers), torch.from_numpy(squares)


def by_products(x: Tensor, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of the `count` of the vectors (K, D) nearest to each of the points x (n, D), by products: numbers (n, count), and
    squared distances less the point's own square."""
    half_squares = 0.5 * vectors.square().sum(1)  # (K,)
    numbers, closeness = [], []
    for part in x.split(max(1, numbers_at_a_time(_DISTANCES, x.device) // len(vectors))):
        close = torch.addmm(half_squares, part, vectors.t(), beta=-1)
        best = close.max(1, keepdim=True) if count == 1 else close.topk(count, dim=1)
        numbers.append(best.indices)
        closeness.append(best.values)
    return torch.cat(numbers), torch.cat(closeness).mul_(-2)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m) squared distances of x (n, D) from y (m, D), from differences, not from expanded squares."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point, the first of equally near ones, (n,) int64, and how far it is (n,).

    Points in float64 are compared in float64, by differences; all others in float32, by a search index.
    """
    if points.dtype == torch.float32:
        numbers, distances = NearestIndex(centroids).found(points, 1)
        return numbers[:, 0], distances[:, 0]
    rows = max(1, numbers_at_a_time(_DISTANCES, points.device) // len(centroids))
    parts = [squared_distances(chunk, centroids).min(1) for chunk in points.split(rows)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


class Assignment:
    """The nearest centroid of each point, while the centroids move.

    A centroid that has not moved is no nearer to a point than the nearest one was before. Where many rest, points are
    therefore compared with those that moved only; all of them matter to a point only if its own centroid moved and none
    is as near now. The labels are those of comparing with all, but for centroids that are equally near to rounding.

    points: (n, D); centroids: (K, D) float64, at first.
    """

    labels: Tensor
    """(n,) int64"""

    def __init__(self, points: Tensor, centroids: Tensor) -> None:
        self._points = points
        self.renew(centroids)

    def renew(self, centroids: Tensor) -> None:
        """Compares all points with all centroids."""
        self._centroids = centroids
        self.labels, self._distances = _nearest(self._points, centroids)

    def move(self, centroids: Tensor) -> None:
        """Assigns the points anew, after the centroids have moved to `centroids`."""
        has_moved = (centroids != self._centroids).any(1)
        moved = has_moved.nonzero()[:, 0]
        if len(moved) > _LARGEST_SHARE * len(centroids):
            self.renew(centroids)
            return
        self._centroids = centroids
        if len(moved) == 0:
            return
        place, distances = _nearest(self._points, centroids[moved])
        found, own_moved = moved[place], has_moved[self.labels]
        # Of equally near centroids the first: those that rest and are as near as it was come after the point's own.
        taken = (distances < self._distances) | ((distances == self._distances) & (found <= self.labels))
        self.labels = found.where(taken, self.labels)
        self._distances = distances.where(taken, self._distances)
        lost = (own_moved & ~taken).nonzero()[:, 0]
        if len(lost):
            self.labels[lost], self._distances[lost] = _nearest(self._points[lost], centroids)
