"""Standardised points, divided into those that a fit is made from and those that decide its choices."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.em.e_step import EStep
from trainer.mixture.em.truncated import TruncatedEStep
from trainer.mixture.points import Points, Standardisation, place_among_ranks, second_moment
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

# With fewer held-out points than this a choice is made by several divisions, each with other points held out.
_MANY_HELD_OUT = 1000
_MOST_DIVISIONS = 5


@dataclass(frozen=True, kw_only=True)
class HeldOutDivision:
    """One division of the points of all processes; the tensors are of this process."""

    points: Points
    """Standardised; a fit is made from them."""
    held_out: Points | None
    """Standardised; they decide convergence, prior strength and inflation."""
    returning: bool
    """Whether the held-out points join the last M-step."""
    second_moment: Tensor
    """(D,): of the points of all processes."""

    def e_step(self, settings: Settings) -> EStep:
        """The E-step of these settings."""
        return self.resident_e_step(settings)

    def resident_e_step(self, settings: Settings) -> DenseEStep | TruncatedEStep:
        """That of points in memory."""
        if settings.width:
            return TruncatedEStep(self.points, self.held_out, self.second_moment, settings.products, settings.width)
        return DenseEStep(self.points, self.held_out, self.second_moment, settings.products)


def divisions(
    standardisation: Standardisation, train: Points, held_out: Points | None, settings: Settings, ranks: Ranks
) -> list[HeldOutDivision]:
    """The division of a fit, and further ones for its choices where few points can be held out (cross-validation).

    held_out: given held-out points, which then stay what they are.
    """

    def division(chosen: Tensor | None, out: Points | None, returning: bool) -> HeldOutDivision:
        points = standardisation.of_some(train, chosen, settings.working_dtype)
        return HeldOutDivision(
            points=points, held_out=out, returning=returning, second_moment=second_moment(points, ranks)
        )

    if held_out is not None:
        return [division(None, standardisation.of_some(held_out, None, settings.working_dtype), False)]
    made = [
        division(~rows, standardisation.of_some(train, rows, settings.working_dtype), True)
        for rows in _held_out_rows(len(train), settings, ranks)
    ]
    return made or [division(None, None, False)]


def _held_out_rows(count: int, settings: Settings, ranks: Ranks) -> Iterator[Tensor]:
    """(count,) flags for each division: a seeded choice of points that does not depend on their spread over processes.

    None where nothing is to be chosen, or where too few points would be left to fit to.
    """
    total, first = place_among_ranks(count, ranks)
    held_count = int(total * settings.validation_fraction)
    if not settings.has_choices or held_count == 0 or total - held_count < settings.n_components:
        return
    order = torch.randperm(total, generator=torch.Generator().manual_seed(settings.random_state + 1))
    several = held_count < _MANY_HELD_OUT and settings.products == "centred"
    for place in range(min(_MOST_DIVISIONS, total // held_count) if several else 1):
        held = torch.zeros(total, dtype=torch.bool)
        held[order[place * held_count : (place + 1) * held_count]] = True
        yield held[first : first + count].to(ranks.device)
