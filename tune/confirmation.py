"""Whether the best configuration beats the default: both with the same seeds, which the search did not use."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune.report.ranking import Record, values

# field of a record: (title, 1 where more is better and -1 where less is)
_MEASURES = {
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
class Side:
    """A measure of one of the two."""

    numbers: tuple[float, ...]
    """One a seed."""

    @property
    def text(self) -> str:
        """Mean ± standard deviation."""
        mean = f"{statistics.fmean(self.numbers):,.1f}"
        return f"{mean} ± {statistics.stdev(self.numbers):,.1f}" if len(self.numbers) > 1 else mean


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure of both."""

    title: str
    best: Side
    default: Side
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Best against default."""

    seeds: int
    """Seeds with which both were trained to their ends."""
    fields: dict[str, Any]
    """What was drawn for the best."""
    measures: tuple[Measure, ...]


def against_default(records: Sequence[Record]) -> Confirmation | None:
    """The comparison over the seeds that both have finished; None where there is no such seed."""
    done = [record for record in records if record["phase"] == "confirm" and record["status"] == "finished"]
    best = {record["seed"]: record for record in done if record["number"] == 0}
    default = {record["seed"]: record for record in done if record["number"] == 1}
    seeds = sorted(best.keys() & default.keys())
    if not seeds:
        return None
    measures = []
    for field, (title, sign) in _MEASURES.items():
        ours, theirs = ([side[seed] for seed in seeds] for side in (best, default))
        a, b = values(ours, field), values(theirs, field)
        if len(a) == len(b) == len(seeds):
            gains = [sign * (x - y) for x, y in zip(a, b, strict=True)]
            sides = Side(numbers=tuple(a)), Side(numbers=tuple(b))
            measures.append(Measure(title=title, best=sides[0], default=sides[1], verdict=_verdict(gains)))
    return Confirmation(seeds=len(seeds), fields=best[seeds[0]]["fields"], measures=tuple(measures))


def _verdict(gains: list[float]) -> str:
    """In words; only what holds with every seed is called better or worse."""
    if all(gain > 0 for gain in gains):
        return "best is better with every seed"
    if all(gain < 0 for gain in gains):
        return "best is worse with every seed"
    return f"best is better with {sum(gain > 0 for gain in gains)} of {len(gains)} seeds"
