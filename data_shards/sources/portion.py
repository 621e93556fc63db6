"""How much of a data set is held out: a number of images, or a percentage."""

import re
from dataclasses import dataclass

from data_shards.io.errors import InputError

_MOST_DIGITS = 15  # far beyond all images there are, and exact in JSON
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class Portion:
    """Either a number of images or a percentage of all."""

    images: int | None = None
    """At least 0."""
    percent: float | None = None
    """0 to 100, ends included."""

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent is not None else str(self.images)

    @property
    def is_none(self) -> bool:
        """Whether nothing is held out."""
        return not self.images and not self.percent

    def of(self, total: int) -> int:
        """How many of `total` images; a percentage is rounded, but to at least one image unless it is 0."""
        if self.percent is None:
            return self.images or 0
        return max(round(total * self.percent / 100), 1 if self.percent else 0)


NOTHING = Portion(images=0)


def portion(text: str | int, parameter: str) -> Portion:
    """A portion as it is written: 500 or "5%". Raises InputError that names the parameter."""
    words = str(text).strip()
    if words.isdecimal() and words.isascii() and len(words) <= _MOST_DIGITS:
        return Portion(images=int(words))
    if (found := _PERCENTAGE.fullmatch(words)) and float(found[1]) <= 100:
        return Portion(percent=float(found[1]))
    raise InputError(
        f"{text!r} is not a number of images, such as 500, or a percentage, such as 5%", parameter=parameter
    )


@dataclass(frozen=True, kw_only=True)
class HeldOutPortions:
    """What is to be held out of the training images."""

    valid: Portion | None = None
    """None: the default of the data set, or its own splits."""
    test: Portion | None = None
    """As `valid`."""
    kept: dict[str, object] | None = None
    """How a former build divided the same source, which goes on to hold; see `Source.division`."""
