"""What each searched field changes: trials grouped by its value, whatever their other fields are."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune.report.ranking import values
from tune.search.objectives import OBJECTIVES
from tune.sweep_config import Dimension, ObjectiveName
from tune.trial.record import TrialRecord

_BINS = 3


@dataclass(frozen=True, kw_only=True)
class Group:
    """The trials with one value, or one third of the range, of a field."""

    field: str
    value: str
    trials: int
    """Without the failed ones."""
    early: float | None
    """Mean ELBO at `early_images`, over those that reached it."""
    finished: int
    """Those that were trained to their end."""
    objective: float | None
    """Mean of the ranking objective over the finished."""
    seconds: float | None
    """Mean training seconds of the finished."""
    images: float | None
    """Mean images of the finished."""


def sensitivity(
    records: Sequence[TrialRecord], space: Sequence[Dimension], objective: ObjectiveName, early_images: int
) -> list[Group]:
    """Groups of the search's trials, field by field in the order of the space, values ascending.

    objective: whose final value is averaged; early_images: images seen at which the ELBO is averaged.
    """
    searched = [record for record in records if record.phase == "search" and record.status != "failed"]
    groups = []
    for dimension in space:
        having = [record for record in searched if dimension.field in record.fields]
        for value, members in _grouped(having, dimension):
            finished = [record for record in members if record.status == "finished"]
            early = [elbo for record in members if (elbo := record.elbo_at(early_images)) is not None]
            groups.append(
                Group(
                    field=dimension.field,
                    value=value,
                    trials=len(members),
                    early=statistics.fmean(early) if early else None,
                    finished=len(finished),
                    objective=_mean(finished, OBJECTIVES[objective].field),
                    seconds=_mean(finished, "seconds"),
                    images=_mean(finished, "images"),
                )
            )
    return groups


def _mean(records: Sequence[TrialRecord], field: str) -> float | None:
    numbers = values(records, field)
    return statistics.fmean(numbers) if numbers else None


def _grouped(records: Sequence[TrialRecord], dimension: Dimension) -> list[tuple[str, list[TrialRecord]]]:
    def drawn(record: TrialRecord) -> Any:
        return record.fields[dimension.field]

    if dimension.kind in ("choice", "randint"):
        found: dict[str, list[TrialRecord]] = {}
        for value in dimension.values if dimension.kind == "choice" else range(*_ends(dimension)):
            members = [record for record in records if drawn(record) == value]
            if members:
                found[str(value)] = members
        return list(found.items())
    ordered = sorted(records, key=drawn)
    cuts = [round(part * len(ordered) / _BINS) for part in range(_BINS + 1)]
    parts = [ordered[a:b] for a, b in itertools.pairwise(cuts) if b > a]
    return [(f"{drawn(part[0]):.3g} to {drawn(part[-1]):.3g}", part) for part in parts]


def _ends(dimension: Dimension) -> tuple[int, int]:
    return dimension.values[0], dimension.values[1] + 1
