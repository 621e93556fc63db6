"""What was probably meant by a name that is not known."""

import difflib
from collections.abc import Iterable

ALIKE = 0.7  # of difflib's ratio; "base" and "betas" have 0.67, as "esp" and "eps" have


def nearest(name: str, known: Iterable[str], *, alike: float = ALIKE) -> str | None:
    """The known name that was probably meant; of several alike all, joined by "or"."""
    known = list(dict.fromkeys(known))
    last = [one.rpartition(".")[2] for one in known]
    same = [one for one, short in zip(known, last, strict=True) if short == name]
    close = same or _closest(name, known, known, alike) or _closest(name.rpartition(".")[2], last, known, alike)
    return " or ".join(close) if close else None


def _closest(name: str, texts: list[str], known: list[str], alike: float) -> list[str]:
    """Those of `known` whose text of `texts` is the most like `name`; empty where none is like it."""
    matcher = difflib.SequenceMatcher(b=name.lower())
    ratios = []
    for text in texts:
        matcher.set_seq1(text.lower())
        # Of short names with two letters swapped the ratio says little.
        ratios.append(1.0 if sorted(text.lower()) == sorted(name.lower()) else matcher.ratio())
    best = max(ratios, default=0.0)
    return [one for one, ratio in zip(known, ratios, strict=True) if ratio == best] if best >= alike else []
