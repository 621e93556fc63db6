"""What else is concluded from the records of a sweep, beside the ranking.

Sensitivity: what each searched field changes, by trials grouped by its value, whatever their other fields are.
Early and final: whether the early metric predicts the final one, by rank correlation over finished trials.
Confirmation: whether the best configuration beats the default, with the same seeds, which the search did not use.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import spearmanr

from tune.report.ranking import best_configuration, finished_with, mean_and_spread, values
from tune.search.trials import DEFAULT
from tune.space import Dimension, Fields, canonical
from tune.sweep_config import OBJECTIVES, ObjectiveName
from tune.trial.record import TrialRecord

_BINS = 3
# field of a TrialRecord: (title, 1 where more is better and -1 where less is)
_COMPARED = {
    "fd_final": ("Held-out FD of samples", -1),
    "fd_stage1": ("Held-out FD of samples, end of stage 1", -1),
    "fd_reconstruction": ("Held-out FD of reconstructions", -1),
    "iwae_final": ("IWAE, nats per image", 1),
    "iwae_stage1": ("IWAE, end of stage 1, nats per image", 1),
    "final_elbo": ("Held-out ELBO at the closed-form sigma, nats per image", 1),
    "seconds": ("Seconds of training", -1),
    "images": ("Images seen", -1),
}


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
        for record in records:
            found.setdefault(str(drawn(record)), []).append(record)
        # In the order of the space; what was in the space of an earlier start alone comes last.
        known = {str(value): place for place, value in enumerate(dimension.values)}
        if dimension.kind == "randint":
            return sorted(found.items(), key=lambda item: _number_first(drawn(item[1][0])))
        return sorted(found.items(), key=lambda item: known.get(item[0], len(known)))
    ordered = sorted((record for record in records if isinstance(drawn(record), int | float)), key=drawn)
    cuts = [round(part * len(ordered) / _BINS) for part in range(_BINS + 1)]
    parts = [ordered[a:b] for a, b in itertools.pairwise(cuts) if b > a]
    return [(f"{drawn(part[0]):.3g} to {drawn(part[-1]):.3g}", part) for part in parts]


def _number_first(value: Any) -> tuple[bool, float]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0


@dataclass(frozen=True, kw_only=True)
class EarlyAndFinal:
    """Spearman's rho between the held-out ELBO at some images and a final number."""

    images: int
    """Images seen at the early check."""
    final: ObjectiveName
    """elbo or fd."""
    trials: int
    """Trials that have both numbers."""
    rho: float | None
    """1 where the early order of trials is the final one, best with best; None below 3 trials or without any order."""


def early_and_final(records: Sequence[TrialRecord], moments: Sequence[int]) -> list[EarlyAndFinal]:
    """For each moment, in images, the correlation with the final ELBO and with the final FD (less is better)."""
    finals: tuple[ObjectiveName, ...] = ("elbo", "fd")
    found = []
    for images in moments:
        for final in finals:
            sign = OBJECTIVES[final].sign
            pairs = [(early, sign * late) for early, late in early_final_pairs(records, images, final)]
            found.append(EarlyAndFinal(images=images, final=final, trials=len(pairs), rho=_spearman(pairs)))
    return found


def early_final_pairs(records: Sequence[TrialRecord], images: int, final: ObjectiveName) -> list[tuple[float, float]]:
    """(ELBO at `images`, final number) of each finished trial of the search that was trained for longer than that.

    A trial that had ended by then would be compared with itself.
    """
    field = OBJECTIVES[final].field
    return [
        (early, getattr(record, field))
        for record in finished_with(records, field)
        if record.images > images and (early := record.elbo_at(images)) is not None
    ]


def _spearman(pairs: list[tuple[float, float]]) -> float | None:
    early, final = [a for a, _ in pairs], [b for _, b in pairs]
    if len(pairs) < 3 or len(set(early)) < 2 or len(set(final)) < 2:
        return None
    return float(spearmanr(early, final).statistic)


@dataclass(frozen=True, kw_only=True)
class ComparedNumber:
    """One measured number of both, as text."""

    title: str
    best: str
    """Mean ± standard deviation over the seeds."""
    default: str
    """The same of the default."""
    verdict: str
    """In words; only what holds with every seed is called better or worse."""


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Best against default."""

    seeds: int
    """Seeds with which both were trained to their ends."""
    fields: Fields
    """What was drawn for the best."""
    comparisons: tuple[ComparedNumber, ...]


def against_default(records: Sequence[TrialRecord], objective: ObjectiveName) -> Confirmation | None:
    """The comparison over the seeds that both have finished; None where there is no such seed.

    Trials of what was the best before the search went on are not among the best's. objective: what ranks.
    """
    chosen = best_configuration(records, objective)
    others = [record for record in finished_with(records, phase="confirm") if record.number != DEFAULT]
    best = {one.seed: one for one in others if chosen is not None and canonical(one.fields) == canonical(chosen)}
    default = {one.seed: one for one in finished_with(records, phase="confirm") if one.number == DEFAULT}
    seeds = sorted(best.keys() & default.keys())
    if not seeds:
        return None
    comparisons = []
    for field, (title, sign) in _COMPARED.items():
        ours, theirs = ([side[seed] for seed in seeds] for side in (best, default))
        a, b = values(ours, field), values(theirs, field)
        if len(a) == len(b) == len(seeds):
            gains = [sign * (x - y) for x, y in zip(a, b, strict=True)]
            sides = mean_and_spread(a), mean_and_spread(b)
            comparisons.append(ComparedNumber(title=title, best=sides[0], default=sides[1], verdict=_verdict(gains)))
    return Confirmation(seeds=len(seeds), fields=best[seeds[0]].fields, comparisons=tuple(comparisons))


def _verdict(gains: list[float]) -> str:
    if all(gain > 0 for gain in gains):
        return "best is better with every seed"
    if all(gain < 0 for gain in gains):
        return "best is worse with every seed"
    return f"best is better with {sum(gain > 0 for gain in gains)} of {len(gains)} seeds"
