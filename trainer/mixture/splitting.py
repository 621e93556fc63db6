"""Which clusters or components are split where others are empty."""

import heapq
from collections.abc import Iterator, Sequence


def splits(sizes: Sequence[float], count: int) -> dict[int, int]:
    """`count` splits of the items of these sizes, one after another of that whose parts are the largest.

    Returns the number of splits of each item that has any; an item of m splits has m + 1 equal parts. The same on every
    process, and in time K log K.
    """
    heap = [(-size, place) for place, size in enumerate(sizes) if size > 0]
    heapq.heapify(heap)
    found: dict[int, int] = {}
    for _ in range(count if heap else 0):
        place = heap[0][1]
        found[place] = found.get(place, 0) + 1
        heapq.heapreplace(heap, (-sizes[place] / (found[place] + 1), place))
    return found


def parts_of(found: dict[int, int], empty: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each item that is split, and the empty places that take its parts."""
    first = 0
    for place, count in found.items():
        yield place, list(empty[first : first + count])
        first += count
