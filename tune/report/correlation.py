"""Whether the early metric predicts the final one: rank correlation over the trials that were trained to their end."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import spearmanr

from tune.report.ranking import finished_with
from tune.search.objectives import OBJECTIVES
from tune.sweep_config import ObjectiveName
from tune.trial.record import TrialRecord


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
