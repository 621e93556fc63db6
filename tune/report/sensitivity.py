"""What each searched field changes: trials grouped by its value, whatever their other fields are."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune.report.ranking import OBJECTIVES, Record, values
from tune.search.space import Dimension

_BINS = 3


@dataclass(frozen=True, kw_only=True)
class Group:
    """The trials with one value, or one third of the range, of a field."""

    field: str
    value: str
    trials: int
    """All of them but the failed."""
    early: float | None
    """Mean ELBO at the common early moment, over those that reached it."""
    finished: int
    """Those that were trained to their end."""
    objective: float | None
    """Mean of the ranking objective over the finished."""
    seconds: float | None
    """Mean training seconds of the finished."""
    images: float | None
    """Mean images of the finished."""


def elbo_at(record: Record, images: int) -> float | None:
    """The held-out ELBO at the first check at or after `images`; None where the trial did not get there."""
    return next((elbo for at, elbo in record["checks"] if at >= images and elbo is not None), None)


def sensitivity(
    records: Sequence[Record], space: Sequence[Dimension], objective: str, early_images: int
) -> list[Group]:
    """Groups of the search's trials, field by field in the order of the space, values ascending."""
    searched = [r for r in records if r["phase"] == "search" and r["status"] != "failed"]
    groups = []
    for dimension in space:
        having = [record for record in searched if dimension.field in record["fields"]]
        for value, members in _grouped(having, dimension):
            finished = [record for record in members if record["status"] == "finished"]
            early = [elbo for r in members if (elbo := elbo_at(r, early_images)) is not None]
            groups.append(
                Group(
                    field=dimension.field,
                    value=value,
                    trials=len(members),
                    early=statistics.fmean(early) if early else None,
                    finished=len(finished),
                    objective=_mean(finished, OBJECTIVES[objective][0]),
                    seconds=_mean(finished, "seconds"),
                    images=_mean(finished, "images"),
                )
            )
    return groups


def _mean(records: Sequence[Record], field: str) -> float | None:
    numbers = values(records, field)
    return statistics.fmean(numbers) if numbers else None


def _grouped(records: Sequence[Record], dimension: Dimension) -> list[tuple[str, list[Record]]]:
    def drawn(record: Record) -> Any:
        return record["fields"][dimension.field]

    if dimension.kind in ("choice", "randint"):
        found: dict[str, list[Record]] = {}
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
