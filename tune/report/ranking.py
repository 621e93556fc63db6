"""Which configuration is best: configurations in the order of their mean over seeds."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

# objective: (field of a record, 1 where more is better and -1 where less is)
OBJECTIVES = {"elbo": ("final_elbo", 1), "fd": ("fd_final", -1), "cost": ("seconds", -1)}


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A configuration with its trials."""

    number: int
    """Of the configuration within its phase."""
    fields: dict[str, Any]
    """What was drawn for it."""
    trials: tuple[Record, ...]
    """Its finished trials, one a seed."""
    mean: float
    """Of the objective over seeds."""
    spread: float | None
    """Standard deviation over seeds; None for one seed."""


def values(records: Sequence[Record], field: str) -> list[float]:
    """The numbers that records have in `field`; unknown and not finite ones are left out."""
    return [float(r[field]) for r in records if r[field] is not None and math.isfinite(r[field])]


def spread_of(records: Sequence[Record], field: str, decimals: int = 1) -> str:
    """Mean ± standard deviation of a field over trials, as text; a dash where no trial has it."""
    numbers = values(records, field)
    if not numbers:
        return "-"
    mean = f"{statistics.fmean(numbers):,.{decimals}f}"
    return f"{mean} ± {statistics.stdev(numbers):,.{decimals}f}" if len(numbers) > 1 else mean


def ranking(records: Sequence[Record], objective: str, phase: str = "search") -> list[Ranked]:
    """The configurations with finished trials, best first. Stopped ones have no final value and are not ranked."""
    field, sign = OBJECTIVES[objective]
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record["phase"] == phase and record["status"] == "finished" and values([record], field):
            groups[record["number"]].append(record)
    ranked = []
    for number, trials in groups.items():
        numbers = values(trials, field)
        ranked.append(
            Ranked(
                number=number,
                fields=trials[0]["fields"],
                trials=tuple(trials),
                mean=statistics.fmean(numbers),
                spread=statistics.stdev(numbers) if len(numbers) > 1 else None,
            )
        )
    # More seeds count first: one lucky seed is no better configuration.
    return sorted(ranked, key=lambda one: (-len(one.trials), -sign * one.mean, one.number))


def best_configuration(records: Sequence[Record], objective: str) -> dict[str, Any] | None:
    """What was drawn for the best configuration of the search; None where no trial has finished."""
    ranked = ranking(records, objective)
    return ranked[0].fields if ranked else None
