"""Whether the early metric foretells the final one: rank correlation over the trials that were trained to their end."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import spearmanr

from tune.report.ranking import OBJECTIVES, Record, values
from tune.report.sensitivity import elbo_at


@dataclass(frozen=True, kw_only=True)
class EarlyAndFinal:
    """Spearman's rho between the held-out ELBO at some images and a final number."""

    images: int
    """The early moment."""
    final: str
    """elbo or fd."""
    trials: int
    """Trials that have both numbers."""
    rho: float | None
    """1 where the early order of trials is the final one, best with best; None below 3 trials or without any order."""


def early_and_final(records: Sequence[Record], moments: Sequence[int]) -> list[EarlyAndFinal]:
    """For each moment, in images, the correlation with the final ELBO and with the final FD (less is better)."""
    finished = [r for r in records if r["phase"] == "search" and r["status"] == "finished"]
    found = []
    for images in moments:
        for final in ("elbo", "fd"):
            field, sign = OBJECTIVES[final]
            # A trial that had ended by then would be compared with itself.
            pairs = [
                (elbo, sign * r[field])
                for r in finished
                if r["images"] > images and values([r], field) and (elbo := elbo_at(r, images)) is not None
            ]
            found.append(EarlyAndFinal(images=images, final=final, trials=len(pairs), rho=_spearman(pairs)))
    return found


def _spearman(pairs: list[tuple[float, float]]) -> float | None:
    early, final = [a for a, _ in pairs], [b for _, b in pairs]
    if len(pairs) < 3 or len(set(early)) < 2 or len(set(final)) < 2:
        return None
    return float(spearmanr(early, final).statistic)
