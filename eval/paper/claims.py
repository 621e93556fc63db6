"""A claim and what our numbers say of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eval.paper.evidence import Number

AGREES, DISAGREES, OPEN, IMPOSSIBLE = "agrees", "does not agree", "not settled", "cannot be reached"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim of the paper and what our numbers say of it."""

    claim: str
    """What the paper says, or what was to be shown."""
    verdict: str
    """AGREES, DISAGREES, OPEN or IMPOSSIBLE."""
    because: str
    """The numbers."""


def below(ours: Number, theirs: Number) -> bool | None:
    """Whether `ours` is the smaller; None where the difference is within twice its standard error."""
    error = math.hypot(ours.error or 0.0, theirs.error or 0.0)
    if abs(ours.value - theirs.value) <= 2 * error:
        return None
    return ours.value < theirs.value


def verdict_of(answers: Sequence[bool | None]) -> str:
    """AGREES where all hold, DISAGREES where one fails, else OPEN."""
    if any(answer is False for answer in answers):
        return DISAGREES
    return AGREES if all(answers) else OPEN
