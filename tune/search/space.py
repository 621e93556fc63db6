"""Configurations drawn from the search space."""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from data_shards.io.errors import InputError
from tune.sweep_config import Dimension, Fields


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
