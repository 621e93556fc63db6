"""The search space: what may be drawn for which fields, how many configurations that makes, and each by its index."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from data_shards.io.configuration import configuration, shown
from data_shards.io.errors import InputError

Fields = dict[str, Any]
"""Fields of the trainer's configuration by dotted name, such as model.latent_dim."""
Kind = Literal["choice", "uniform", "loguniform", "randint"]


@configuration
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
                raise InputError("choice has no values; give at least one", parameter=where)
            known: set[str] = set()
            for value in self.values:
                if (key := canonical(value)) in known:
                    raise InputError(f"choice has {shown(value)} twice; give it once", parameter=where)
                known.add(key)
            return
        whole = self.kind == "randint"
        numbers = [v for v in self.values if isinstance(v, int if whole else int | float) and not isinstance(v, bool)]
        if len(self.values) != 2 or len(numbers) != 2 or not self.values[0] < self.values[1]:
            what = f"{self.kind} needs two {'whole ' * whole}numbers [low, high], low below high"
            raise InputError(what, parameter=where)
        if self.kind == "loguniform" and self.values[0] <= 0:
            raise InputError("loguniform needs numbers above 0", parameter=where)

    @property
    def largest(self) -> Any:
        """The largest value that can be drawn."""
        return max(self.values)

    @property
    def is_finite(self) -> bool:
        """Whether a finite number of values can be drawn."""
        return self.kind in ("choice", "randint")

    @property
    def count(self) -> int:
        """How many values can be drawn; 1 for an interval."""
        return len(self.values) if self.kind == "choice" else self.values[1] - self.values[0] + 1

    def value(self, index: int) -> Any:
        """Value number `index` of a finite dimension."""
        return self.values[index] if self.kind == "choice" else self.values[0] + index

    def has(self, value: Any) -> bool:
        """Whether the value can be drawn."""
        if self.kind == "choice":
            return canonical(value) in [canonical(one) for one in self.values]
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "randint" else int | float):
            return False
        return bool(self.values[0] <= value <= self.values[1])


def canonical(value: Any) -> str:
    """A text that is equal for equal values, whatever their type: 1 and 1.0, a list and a tuple."""

    def plain(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {str(name): plain(inner) for name, inner in one.items()}
        if isinstance(one, list | tuple):
            return [plain(inner) for inner in one]
        return int(one) if isinstance(one, float) and one.is_integer() else one

    return json.dumps(plain(value), sort_keys=True, default=str)


def draw(space: tuple[Dimension, ...], pick: Callable[[Dimension], Any]) -> Fields:
    """Fields drawn in order with `pick`; a dimension whose condition does not hold is left out."""
    fields: Fields = {}
    for dimension in space:
        if _holds(dimension, fields):
            fields[dimension.field] = pick(dimension)
    return fields


def _holds(dimension: Dimension, fields: Fields) -> bool:
    return all(other in fields and canonical(fields[other]) == canonical(value) for other, value in dimension.when)


@dataclass(frozen=True, kw_only=True)
class Combinations:
    """All configurations of a space of finite dimensions, each once, counted and found without listing them.

    The last dimension changes fastest. What a later condition asks for decides how many configurations follow, so
    counts are kept by place and by the values of those fields alone.
    """

    space: tuple[Dimension, ...]

    counts: dict[tuple[int, str], int] = field(default_factory=dict, compare=False, repr=False)
    """What `count` has found."""

    @property
    def size(self) -> int:
        """How many there are."""
        return self.count(0, {})

    @functools.cached_property
    def _asked(self) -> dict[str, list[Any]]:
        """The fields that conditions ask for, with the values."""
        found: dict[str, list[Any]] = {}
        for dimension in self.space:
            for other, value in dimension.when:
                if canonical(value) not in [canonical(one) for one in found.setdefault(other, [])]:
                    found[other].append(value)
        return found

    def count(self, place: int, fields: Fields) -> int:
        """Configurations of the dimensions from `place` on, where those before have these values."""
        if place == len(self.space):
            return 1
        key = place, canonical({name: fields[name] for name in self._asked if name in fields})
        if key not in self.counts:
            dimension = self.space[place]
            if not _holds(dimension, fields):
                self.counts[key] = self.count(place + 1, fields)
            else:
                asked = self._asked.get(dimension.field, [])
                found = sum(self.count(place + 1, {**fields, dimension.field: value}) for value in asked)
                if dimension.count > len(asked):  # all other values are followed by as many
                    other = {**fields, dimension.field: "another"}
                    found += (dimension.count - len(asked)) * self.count(place + 1, other)
                self.counts[key] = found
        return self.counts[key]

    def __getitem__(self, index: int) -> Fields:
        fields: Fields = {}
        for place, dimension in enumerate(self.space):
            if not _holds(dimension, fields):
                continue
            for number in range(dimension.count):
                fields[dimension.field] = dimension.value(number)
                below = self.count(place + 1, fields)
                if dimension.field not in self._asked:
                    fields[dimension.field] = dimension.value(index // below)
                    index %= below
                    break
                if index < below:
                    break
                index -= below
        return fields


def read_space(content: Any) -> tuple[Dimension, ...]:
    """The space of a YAML mapping {field: {kind: values, when: {field: value}}}. Raises InputError in one line."""
    if content is not None and not isinstance(content, Mapping):
        what = f"{shown(content)} is no mapping; use for instance {{model.latent_dim: {{choice: [8, 16]}}}}"
        raise InputError(what, parameter="space")
    if not content:
        what = "is empty; name at least one field, such as model.latent_dim: {choice: [8, 16]}"
        raise InputError(what, parameter="space")
    space: list[Dimension] = []
    for name, entry in content.items():
        where = f"space.{name}"
        kinds = [key for key in entry if key != "when"] if isinstance(entry, Mapping) else []
        if len(kinds) != 1 or kinds[0] not in get_args(Kind) or not isinstance(entry[kinds[0]], list):
            what = f"{shown(entry)} is unknown; use one of {', '.join(get_args(Kind))} with a list"
            raise InputError(what, parameter=where)
        when = entry.get("when", {})
        if not isinstance(when, Mapping):
            raise InputError(f"{shown(when)} is no mapping; use {{field: value}}", parameter=f"{where}.when")
        for other, value in when.items():
            above = next((dimension for dimension in space if dimension.field == other), None)
            if above is None:
                raise InputError(f"{other} is not searched above it; put it first", parameter=f"{where}.when")
            if above.is_finite and not above.has(value):
                can = shown(above.values) if above.kind == "choice" else f"{above.values[0]} to {above.values[1]}"
                what = f"{other} is never {shown(value)}; use one of its values, {can}"
                raise InputError(what, parameter=f"{where}.when")
            if not above.is_finite:
                what = f"{other} is a number of an interval and never exactly {shown(value)}; use a choice or randint"
                raise InputError(what, parameter=f"{where}.when")
        values = tuple(entry[kinds[0]])
        space.append(Dimension(field=str(name), kind=kinds[0], values=values, when=tuple(when.items())))
    return tuple(space)
