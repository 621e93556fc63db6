"""The search space: what may be drawn for which field of the trainer's configuration."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from data_shards.io.errors import InputError

Kind = Literal["choice", "uniform", "loguniform", "randint"]
Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One field that is searched."""

    field: str
    """Dotted name of a field of the trainer's configuration, such as model.latent_dim."""
    kind: Kind
    """choice: one of the values; uniform, loguniform: a number between two; randint: a whole one, ends included."""
    values: tuple[Any, ...]
    """The choices, or the lower and the upper end."""
    when: tuple[tuple[str, Any], ...] = ()
    """(field, value) pairs that must all hold for this field to be drawn; else it keeps the base's value."""

    def __post_init__(self) -> None:
        where = f"space.{self.field}"
        if self.kind == "choice":
            if not self.values:
                raise InputError(f"{where}: choice has no values; give at least one")
            return
        whole = self.kind == "randint"
        numbers = [v for v in self.values if isinstance(v, int if whole else int | float) and not isinstance(v, bool)]
        if len(self.values) != 2 or len(numbers) != 2 or not self.values[0] < self.values[1]:
            raise InputError(f"{where}: {self.kind} needs two {'whole ' * whole}numbers [low, high], low below high")
        if self.kind == "loguniform" and self.values[0] <= 0:
            raise InputError(f"{where}: loguniform needs numbers above 0")

    @property
    def largest(self) -> Any:
        """The largest value that can be drawn."""
        return max(self.values)


def read_space(content: Any) -> tuple[Dimension, ...]:
    """The space of a YAML mapping {field: {kind: values, when: {field: value}}}. Raises InputError in one line."""
    if not isinstance(content, Mapping) or not content:
        raise InputError("space: is empty; name at least one field, such as model.latent_dim: {choice: [8, 16]}")
    space: list[Dimension] = []
    for field, entry in content.items():
        kinds = [key for key in entry if key != "when"] if isinstance(entry, Mapping) else []
        if len(kinds) != 1 or kinds[0] not in get_args(Kind) or not isinstance(entry[kinds[0]], list):
            raise InputError(f"space.{field}: {entry!r} is unknown; use one of {', '.join(get_args(Kind))} with a list")
        when = entry.get("when", {})
        if not isinstance(when, Mapping):
            raise InputError(f"space.{field}.when: {when!r} is no mapping; use {{field: value}}")
        for other in when:
            if other not in [dimension.field for dimension in space]:
                raise InputError(f"space.{field}.when: {other} is not searched above it; put it first")
        values = tuple(entry[kinds[0]])
        space.append(Dimension(field=str(field), kind=kinds[0], values=values, when=tuple(when.items())))
    return tuple(space)


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
