"""The trials of a sweep: which configurations a grid or random search draws, and which seed each is trained with."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from data_shards.io.errors import InputError
from tune.sweep_config import Dimension, Fields, SweepConfig

Phase = Literal["search", "confirm"]


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


def draw(space: tuple[Dimension, ...], pick: Callable[[Dimension], Any]) -> Fields:
    """Fields drawn in order with `pick`; a dimension whose condition does not hold is left out."""
    fields: Fields = {}
    for dimension in space:
        if all(other in fields and fields[other] == value for other, value in dimension.when):
            fields[dimension.field] = pick(dimension)
    return fields


def random_fields(space: tuple[Dimension, ...], seed: int, index: int) -> Fields:
    """The configuration number `index` of a random search: a function of (seed, index) alone."""
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


def grid(space: tuple[Dimension, ...]) -> Iterator[Fields]:
    """Every combination once. Raises InputError where a dimension has no finite number of values."""
    for dimension in space:
        if dimension.kind in ("uniform", "loguniform"):
            raise InputError(f"space.{dimension.field}: a grid needs choice or randint, not {dimension.kind}")
    values = {d.field: d.values if d.kind == "choice" else tuple(range(d.values[0], d.values[1] + 1)) for d in space}
    seen: list[Fields] = []
    for combination in itertools.product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        fields = draw(space, lambda dimension, chosen=chosen: chosen[dimension.field])  # type: ignore[misc]
        if fields not in seen:
            seen.append(fields)
            yield fields


def repeated(phase: Phase, configurations: Iterable[Fields], seeds: Iterable[int]) -> list[Trial]:
    """Each configuration with each seed; all configurations with the first seed come first."""
    drawn = list(configurations)
    return [
        Trial(phase=phase, number=number, seed=seed, fields=fields)
        for seed in seeds
        for number, fields in enumerate(drawn)
    ]


def search_trials(sweep: SweepConfig) -> list[Trial]:
    """All trials of a grid or random search. Raises InputError for a grid over a continuous field."""
    if sweep.search == "grid":
        return repeated("search", grid(sweep.space), sweep.seeds)
    drawn = (random_fields(sweep.space, sweep.seed, index) for index in range(sweep.configurations))
    return repeated("search", drawn, sweep.seeds)


def number_of_search_trials(sweep: SweepConfig) -> int:
    """Trials of the search, before any is stopped early."""
    if sweep.search == "grid":
        return len(search_trials(sweep))
    return sweep.configurations * len(sweep.seeds)
