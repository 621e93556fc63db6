"""Whether the best configuration beats the default: both with the same seeds, which the search did not use."""

from collections.abc import Sequence
from dataclasses import dataclass

from tune.report.ranking import finished_with, mean_and_spread, values
from tune.sweep_config import Fields
from tune.trial.record import TrialRecord

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
class Comparison:
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
    comparisons: tuple[Comparison, ...]


def against_default(records: Sequence[TrialRecord]) -> Confirmation | None:
    """The comparison over the seeds that both have finished; None where there is no such seed."""
    done = finished_with(records, phase="confirm")
    best = {record.seed: record for record in done if record.number == 0}
    default = {record.seed: record for record in done if record.number == 1}
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
            comparisons.append(Comparison(title=title, best=sides[0], default=sides[1], verdict=_verdict(gains)))
    return Confirmation(seeds=len(seeds), fields=best[seeds[0]].fields, comparisons=tuple(comparisons))


def _verdict(gains: list[float]) -> str:
    if all(gain > 0 for gain in gains):
        return "best is better with every seed"
    if all(gain < 0 for gain in gains):
        return "best is worse with every seed"
    return f"best is better with {sum(gain > 0 for gain in gains)} of {len(gains)} seeds"
