"""Which configuration is best, also as a file for the trainer, and which trials are Pareto-optimal."""

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from trainer.config.config import to_yaml
from tune.search.trials import Phase
from tune.space import Fields
from tune.sweep_config import OBJECTIVES, ObjectiveName, SweepConfig
from tune.trial.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A configuration with its trials."""

    number: int
    """Of the configuration within its phase."""
    fields: Fields
    """What was drawn for it."""
    trials: tuple[TrialRecord, ...]
    """Its finished trials, one a seed."""
    mean: float
    """Of the objective over seeds."""
    spread: float | None
    """Standard deviation over seeds; None for one seed."""


def values(records: Sequence[TrialRecord], field: str) -> list[float]:
    """The numbers that records have in `field`; unknown and not finite ones are left out."""
    numbers = [getattr(record, field) for record in records]
    return [float(number) for number in numbers if number is not None and math.isfinite(number)]


def mean_and_spread(numbers: Sequence[float], decimals: int = 1) -> str:
    """Mean ± standard deviation, as text; the mean alone of one number, a dash for none."""
    if not numbers:
        return "-"
    mean = f"{statistics.fmean(numbers):,.{decimals}f}"
    return f"{mean} ± {statistics.stdev(numbers):,.{decimals}f}" if len(numbers) > 1 else mean


def finished_with(records: Sequence[TrialRecord], *fields: str, phase: Phase = "search") -> list[TrialRecord]:
    """The trials of a phase that were trained to their ends and have finite numbers in all of these fields."""
    done = [record for record in records if record.phase == phase and record.status == "finished"]
    return [record for record in done if all(values([record], field) for field in fields)]


def ranking(records: Sequence[TrialRecord], objective: ObjectiveName) -> list[Ranked]:
    """The configurations of the search with finished trials, best first.

    Stopped trials have no final value and are not ranked.
    """
    field, sign = OBJECTIVES[objective].field, OBJECTIVES[objective].sign
    groups: dict[int, list[TrialRecord]] = defaultdict(list)
    for record in finished_with(records, field):
        groups[record.number].append(record)
    ranked = []
    for number, trials in groups.items():
        numbers = values(trials, field)
        ranked.append(
            Ranked(
                number=number,
                fields=trials[0].fields,
                trials=tuple(trials),
                mean=statistics.fmean(numbers),
                spread=statistics.stdev(numbers) if len(numbers) > 1 else None,
            )
        )
    # More seeds come first: a good result with one seed may be chance.
    return sorted(ranked, key=lambda one: (-len(one.trials), -sign * one.mean, one.number))


def best_configuration(records: Sequence[TrialRecord], objective: ObjectiveName) -> Fields | None:
    """What was drawn for the best configuration of the search; None where no trial has finished."""
    ranked = ranking(records, objective)
    return ranked[0].fields if ranked else None


def export_best(sweep: SweepConfig, ranked: list[Ranked], path: Path) -> None:
    """Writes the best configuration with every field. Raises InputError where no trial has been trained to its end."""
    if not ranked:
        raise InputError(
            "no trial was trained to its end, so there is no best one; see the report for the reasons",
            parameter="export_best",
        )
    best = ranked[0]
    config = sweep.trainer_config(f"best-of-{sweep.name}", sweep.seeds[0], best.fields)
    data = dataclasses.replace(config.data, shards=_from_here(config.data.shards))
    config = dataclasses.replace(config, data=data, runs=_from_here(sweep.runs))
    measured = f"{sweep.objectives[0]} {best.mean:.1f} over {len(best.trials)} seed{'s' * (len(best.trials) > 1)}"
    write_text(path, f"# Configuration {best.number} of the sweep {sweep.name}: {measured}.\n{to_yaml(config)}")


def _from_here(path: str) -> str:
    """Relative within the working directory, so that the file can be used on another machine."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def pareto_front(records: Sequence[TrialRecord], objective: ObjectiveName) -> list[TrialRecord]:
    """The finished trials of the search that no other one beats in quality at the same or a lower cost.

    Cheapest first; the cost is seconds of training.
    """
    field, sign, cost = OBJECTIVES[objective].field, OBJECTIVES[objective].sign, OBJECTIVES["cost"].field

    def order(record: TrialRecord) -> tuple[float, float, str]:
        return getattr(record, cost), -sign * getattr(record, field), record.trial

    front: list[TrialRecord] = []
    for record in sorted(finished_with(records, field, cost), key=order):
        if not front or sign * getattr(record, field) > sign * getattr(front[-1], field):
            front.append(record)
    return front
