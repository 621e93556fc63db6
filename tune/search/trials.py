"""The trials of a sweep: which configurations a grid or random search draws, and which seed each is trained with."""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from data_shards.io.errors import InputError
from tune.space import Combinations, Dimension, Fields, canonical, draw
from tune.sweep_config import SweepConfig

# After this many draws for each configuration that they found, what is left of a space up to this size is listed.
_DRAWS_EACH, _MOST_LISTED = 20, 100_000
Phase = Literal["search", "confirm"]
DEFAULT = 1
"""Number of the default among the configurations of the phase confirm; all others were the best of the search."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a sweep."""

    phase: Phase
    """search, or confirm for the best configuration and the default afterwards."""
    number: int
    """Of the configuration within its phase, from 0."""
    seed: int
    """The trainer's seed."""
    fields: Fields
    """What was drawn for the configuration, by dotted name."""

    @property
    def name(self) -> str:
        """The trial's name and that of its run folder.

        It depends on the numbers of configuration and seed alone, so that a trial that is started again, by Ray or by a
        person, finds its run folder and continues from its last checkpoint.
        """
        return f"{self.phase}-{self.number:03d}-seed{self.seed}"


def random_fields(space: tuple[Dimension, ...], seed: int, index: int) -> Fields:
    """Draw number `index` of a random search: a function of (seed, index) alone."""
    generator = random.Random(f"{seed}/{index}")

    def pick(dimension: Dimension) -> Any:
        if dimension.kind == "choice":
            return generator.choice(dimension.values)
        low, high = dimension.values
        if dimension.kind == "randint":
            return generator.randint(low, high)
        if dimension.kind == "uniform":
            return generator.uniform(low, high)
        return math.exp(generator.uniform(math.log(low), math.log(high)))

    return draw(space, pick)


def finite_size(space: Sequence[Dimension]) -> int | None:
    """How many configurations the space has; None where a number of an interval may be drawn."""
    return Combinations(space=tuple(space)).size if all(dimension.is_finite for dimension in space) else None


def grid(space: tuple[Dimension, ...]) -> Iterator[Fields]:
    """Every combination once, one after another. Raises InputError where a dimension has no finite number of values."""
    for dimension in space:
        if not dimension.is_finite:
            raise InputError(
                f"a grid needs choice or randint, not {dimension.kind}", parameter=f"space.{dimension.field}"
            )
    every = Combinations(space=space)
    return (every[index] for index in range(every.size))


def distinct_draws(space: tuple[Dimension, ...], seed: int) -> Iterator[Fields]:
    """The draws of a random search, none twice. Ends where the space is exhausted."""
    size = finite_size(space)
    seen: set[str] = set()
    index = 0
    while size is None or len(seen) < size:
        if size is not None and size <= _MOST_LISTED and index > _DRAWS_EACH * (len(seen) + 1):
            # What is left is rare: it follows in a random order.
            every = Combinations(space=space)
            left = [fields for place in range(size) if canonical(fields := every[place]) not in seen]
            random.Random(f"{seed}/left").shuffle(left)
            yield from left
            return
        fields = random_fields(space, seed, index)
        index += 1
        if (key := canonical(fields)) not in seen:
            seen.add(key)
            yield fields


def confirming_trials(best: Fields, known: Mapping[int, Fields], seeds: Iterable[int]) -> list[Trial]:
    """The best configuration of the search and the default with each seed; both with the first seed come first.

    known: the configurations that were confirmed before, by number. The best of a search that has gone on since gets a
    number of its own, so that its trials are not taken for those of the former best.
    """
    same = [number for number, fields in known.items() if number != DEFAULT and canonical(fields) == canonical(best)]
    number = same[0] if same else 0 if 0 not in known else max(*known, DEFAULT) + 1
    return [
        Trial(phase="confirm", number=one, seed=seed, fields=fields)
        for seed in seeds
        for one, fields in ((number, best), (DEFAULT, {}))
    ]


def number_of_configurations(sweep: SweepConfig, known: Mapping[int, Fields] = MappingProxyType({})) -> int:
    """Configurations of the search. Raises InputError for a grid over an interval.

    known: those that were drawn before, by number. They stay; where the space has changed since, those that it does not
    have any more take the place of none that it has.
    """
    if sweep.search == "grid":
        grid(sweep.space)
    size, asked = finite_size(sweep.space), sweep.configurations
    if size is not None:
        most = size + sum(not _is_in(sweep.space, fields) for fields in known.values())
        asked = most if sweep.search == "grid" else min(most, asked)
    return max(asked, len(known))


def _is_in(space: tuple[Dimension, ...], fields: Fields) -> bool:
    """Whether the space has this configuration."""
    if not all(one.has(fields[one.field]) for one in space if one.field in fields):
        return False
    try:
        return canonical(draw(space, lambda one: fields[one.field])) == canonical(fields)
    except KeyError:  # a field that is drawn now, and was not
        return False


def number_of_search_trials(sweep: SweepConfig, known: Mapping[int, Fields] = MappingProxyType({})) -> int:
    """Trials of the search, before any is stopped early. known: as of `number_of_configurations`."""
    return number_of_configurations(sweep, known) * len(sweep.seeds)


def search_trials(sweep: SweepConfig, known: Mapping[int, Fields] = MappingProxyType({})) -> Iterator[Trial]:
    """All trials of a grid or random search, one after another; all configurations with the first seed come first.

    known: the configurations that the sweep has drawn before, by number. They stay what they are, also where the space
    has changed since; others are added.
    """
    drawn = grid(sweep.space) if sweep.search == "grid" else distinct_draws(sweep.space, sweep.seed)
    before = {canonical(fields) for fields in known.values()}
    new = (fields for fields in drawn if canonical(fields) not in before)
    count = max(number_of_configurations(sweep, known), max(known, default=-1) + 1)
    found: dict[int, Fields] = dict(known)
    for place, seed in enumerate(sweep.seeds):
        for number in range(count):
            if number not in found and place == 0 and (fields := next(new, None)) is not None:
                if len(sweep.seeds) > 1:
                    found[number] = fields
                yield Trial(phase="search", number=number, seed=seed, fields=fields)
            elif number in found:
                yield Trial(phase="search", number=number, seed=seed, fields=found[number])
