"""The division of points that do not fit in memory: what is kept of them, and the rest in chunks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.chunks import Chunks
from trainer.mixture.division import HeldOutDivision
from trainer.mixture.em.e_step import EStep
from trainer.mixture.em.streamed import StreamedEStep
from trainer.mixture.points import Points, Standardisation, place_among_ranks
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

# k-means gets so many points a component, or so many in all: more hardly move its centroids.
_SAMPLED_POINTS_A_COMPONENT, _LEAST_SAMPLED = 256, 1 << 18
# So many held-out points settle what they choose.
_MOST_HELD_OUT = 100_000


@dataclass(frozen=True)
class ChunkMoments:
    """Of the points of all processes. count: N; mean and variance: (D,) float64; first: points before this process's"""

    count: int
    mean: Tensor
    variance: Tensor
    first: int

    @staticmethod
    def of(chunks: Chunks, ranks: Ranks) -> "ChunkMoments":
        """In one pass: squares are about each chunk's own mean, so that nothing is lost far from the origin."""
        count, mean = 0, torch.zeros(chunks.dim, dtype=torch.float64, device=ranks.device)
        squares = torch.zeros_like(mean)
        for chunk in chunks:
            x = chunk.to(ranks.device).double()
            own = x.mean(0)
            step, both = own - mean, count + len(x)
            squares += (x - own).square().sum(0) + step.square() * (count * len(x) / both)
            mean = mean + step * (len(x) / both)
            count = both
        total, first = place_among_ranks(count, ranks)
        whole = ranks.sum_(mean * count) / total
        squares = ranks.sum_(squares + count * (mean - whole).square())
        return ChunkMoments(total, whole, squares / total, first)

    def standardisation(self) -> Standardisation:
        """By these moments."""
        scale = float(self.variance.mean().sqrt())
        return Standardisation(self.mean, scale if scale > 0 else 1.0)


@dataclass(frozen=True)
class _Rest:
    """The standardised points of each pass that are not held out."""

    chunks: Chunks
    first: int
    is_held_out: Callable[[Tensor], Tensor]
    standardisation: Standardisation
    dtype: torch.dtype
    device: torch.device

    def __iter__(self) -> Iterator[Points]:
        for x, places in placed(self.chunks, self.first, self.device):
            yield self.standardisation.of_some(Points(x), ~self.is_held_out(places), self.dtype)


def placed(chunks: Chunks, first: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunk after chunk, (n, D), with the places (n,) of its points among all, from `first` on."""
    for chunk in chunks:
        yield chunk.to(device), torch.arange(first, first + len(chunk), device=device)
        first += len(chunk)


@dataclass(frozen=True, kw_only=True)
class StreamedDivision(HeldOutDivision):
    """points: those that k-means starts from. An E-step goes through all that are not held out."""

    rest: _Rest

    def e_step(self, settings: Settings) -> EStep:
        """See `HeldOutDivision`."""
        return StreamedEStep(self.rest, self.resident_e_step(settings))


def streamed_division(
    chunks: Chunks,
    moments: ChunkMoments,
    standardisation: Standardisation,
    held_out: Points | None,
    settings: Settings,
    ranks: Ranks,
) -> StreamedDivision:
    """Held-out points and those of k-means are chosen by their places and the seed, whatever chunks they come in.

    held_out: given ones, which then stay what they are.
    """
    wanted = min(moments.count * settings.validation_fraction, _MOST_HELD_OUT)
    splits = held_out is None and settings.has_choices and wanted >= 1
    splits = splits and moments.count - wanted - 6 * math.sqrt(wanted) >= settings.n_components
    held_share = wanted / moments.count if splits else 0.0
    enough = max(_SAMPLED_POINTS_A_COMPONENT * settings.n_components, _LEAST_SAMPLED)
    sampled_share = min(1.0, enough / moments.count)
    seed = settings.random_state

    def is_held_out(places: Tensor) -> Tensor:
        return uniform(places, seed + 1) < held_share

    kept, held = [], []
    for x, places in placed(chunks, moments.first, ranks.device):
        out = is_held_out(places)
        kept.append(x[~out & (uniform(places, seed) < sampled_share)])
        held.append(x[out])
    dtype = settings.working_dtype
    own = standardisation.of_some(Points(torch.cat(held)), None, dtype) if splits else None
    given = None if held_out is None else standardisation.of_some(held_out, None, dtype)
    return StreamedDivision(
        points=standardisation.of_some(Points(torch.cat(kept)), None, dtype),
        held_out=own if given is None else given,
        returning=splits,
        second_moment=moments.variance / standardisation.scale**2,
        rest=_Rest(chunks, moments.first, is_held_out, standardisation, dtype, ranks.device),
    )


def uniform(places: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each place (n,) int64, the same wherever it is computed (splitmix64)."""
    x = places + (seed + 1) * 0x1E3779B97F4A7C15 % (1 << 63)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        x = (x ^ _shifted(x, shift)) * factor
    return _shifted(x, 11).double() / (1 << 53)


def _shifted(x: Tensor, by: int) -> Tensor:
    """x (n,) int64 shifted right as an unsigned number."""
    return (x >> by) & ((1 << (64 - by)) - 1)
