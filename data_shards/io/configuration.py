"""Configurations: frozen dataclasses whose types state the ranges, built strictly from what a YAML file holds.

A class under `@configuration` has fields such as `workers: NonNegativeInt = 0`, each with its meaning as a text below;
`read_configuration(ThatClass, path)` reads a file. Whatever is wrong with it is one line:
`workers: -1 is not a whole number of at least 0; use for instance 0 (in FILE)`.

A field that does not exist is answered with the one that was probably meant, in whatever section it is.
"""

import ast
import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import itertools
import os
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from data_shards.io.errors import InputError, is_address
from data_shards.io.likeness import ALIKE, nearest
from data_shards.io.strict_yaml import in_file, parse_yaml, read_yaml

T = TypeVar("T")


_MOST = 2**63 - 1  # of 64 bits


def _whole(value: Any) -> Any:
    if isinstance(value, int | float) and not abs(value) <= _MOST:
        raise ValueError("more than 64 bits")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _path(value: str) -> str:
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise ValueError("no such user")
    return _encodable(expanded)


def _local_path(value: str) -> str:
    if is_address(value):
        raise ValueError("an address")
    return _path(value)


def _encodable(value: str) -> str:
    value.encode()  # raises UnicodeError, a ValueError, for bytes of another encoding
    if not value.isprintable():
        raise ValueError("control characters")
    return value


Int = Annotated[int, BeforeValidator(_whole)]
"""A whole number of 64 bits, which may be written as 1e6."""
PositiveInt = Annotated[Int, Field(ge=1)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1, ends included."""
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
"""Above 0 and at most 1."""
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        max_length=200,
        description="a name of at most 200 letters, digits, dots, dashes and underscores",
    ),
]
"""The name of a folder, or of a row."""
Text = Annotated[str, AfterValidator(_encodable), Field(min_length=1, description="a text in one line")]
PathText = Annotated[
    str, AfterValidator(_path), Field(min_length=1, description="a path or an address (~ is the home folder)")
]
"""A file, folder or address; ~ is the home folder."""
LocalPathText = Annotated[
    str, AfterValidator(_local_path), Field(min_length=1, description="a path of this machine (~ is the home folder)")
]
"""A file or folder, and no address; ~ is the home folder."""


_SETTINGS = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, Field))
def configuration(kind: type[T]) -> type[T]:
    """Makes a class a frozen, keyword-only dataclass whose values are checked against their types when it is made.

    Nothing is converted but a list to a tuple and 1e6 to a whole number. What fields may be together is checked in
    `__post_init__`, which raises InputError(message, parameter=name of the field). Making one raises InputError.
    """
    made = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_SETTINGS)(kind)
    validated = made.__init__

    @functools.wraps(validated)
    def __init__(self: Any, **values: Any) -> None:
        for name, info in fields_of(made).items():
            if isinstance(values.get(name), list) and _may_be_tuple(info.annotation):
                values[name] = tuple(values[name])
        try:
            validated(self, **values)
        except pydantic.ValidationError as error:
            raise _one_error(made, values, error) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def build(kind: type[T], content: Any, name: str = "", whole: type | None = None) -> T:
    """A configuration from nested mappings, as YAML has them.

    name: of the section that `content` is, and whole: what it is a section of, for messages. Raises
    InputError(parameter=dotted name of the field).
    """
    whole = whole or kind
    if not isinstance(content, Mapping):
        what = "is empty" if content is None else f"{shown(content)} is not a section"
        some = ", ".join(list(fields_of(kind))[:3])
        raise InputError(f"{what}; use fields below it, such as {some}, or leave it out", parameter=name or None)
    prefix, values = f"{name}." if name else "", {}
    for field, value in content.items():
        info = fields_of(kind).get(field)
        if info is None:
            field = field if isinstance(field, str) else shown(field)
            raise InputError(_unknown_field(whole, kind, field, prefix), parameter=f"{prefix}{field}")
        item = _item(info)
        if is_configuration(info.annotation):
            value = build(typing.cast(type, info.annotation), value, f"{prefix}{field}", whole)
        elif is_configuration(item) and isinstance(value, list):
            value = tuple(build(item, one, f"{prefix}{field}[{at}]", item) for at, one in enumerate(value))
        values[field] = value
    try:
        return kind(**values)
    except InputError as error:
        parameter = f"{prefix}{error.parameter}" if error.parameter else name or None
        raise InputError(error.named(None), parameter=parameter) from None


def read_configuration(kind: type[T], path: str | Path) -> T:
    """A configuration from a YAML file. Raises InputError, in one line with the field and the file."""
    content = read_yaml(path)
    try:
        return build(kind, content)
    except InputError as error:
        raise in_file(error, path) from None


def fields_of(kind: type) -> dict[str, FieldInfo]:
    """The fields of a configuration and what is known of their types."""
    return kind.__pydantic_fields__  # type: ignore[attr-defined]


def is_configuration(kind: Any) -> bool:
    """True for a class that `configuration` made."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_fields__")


def leaf_fields(kind: type, prefix: str = "") -> dict[str, FieldInfo]:
    """All fields that hold a value rather than further fields, by dotted name."""
    found: dict[str, FieldInfo] = {}
    for name, info in fields_of(kind).items():
        inner: Any = info.annotation
        found |= leaf_fields(inner, f"{prefix}{name}.") if is_configuration(inner) else {prefix + name: info}
    return found


@functools.cache
def meanings(kind: type) -> dict[str, str]:
    """The text below each field of a configuration's source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: str(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def described(info: FieldInfo) -> str:
    """What a field may hold, in words: "a whole number of at least 1"."""
    annotation: Any = info.annotation
    return _words(annotation, [info, *info.metadata])


def shown(value: Any) -> str:
    """A value as it is written in YAML, cut where it is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
_BOUNDS = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}


def _words(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], [*metadata, *arguments[1:]])
    for known in metadata:
        if isinstance(known, FieldInfo):
            if known.description:
                return known.description
            metadata = [*metadata, *(one for one in known.metadata if one not in metadata)]
    bounds = {bound: getattr(one, bound) for bound in _BOUNDS for one in metadata if hasattr(one, bound)}
    if annotation in _PLAIN:
        if bounds.keys() == {"ge", "le"}:
            return f"{_PLAIN[annotation]} from {bounds['ge']:g} to {bounds['le']:g}"
        words = " and ".join(f"{_BOUNDS[bound]} {limit:g}" for bound, limit in bounds.items())
        return f"{_PLAIN[annotation]} {words}".strip()
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(one, metadata if one is not type(None) else []) for one in arguments)
    if origin is tuple:
        item = _words(arguments[0], [])
        if arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)}, each {item}"
        some = " of at least one" if any(getattr(one, "min_length", 0) for one in metadata) else ""
        return f"a list{some}, each {item}"
    if origin in (dict, Mapping, collections.abc.Mapping):
        return "a mapping of names to values"
    return "a section with fields of its own" if is_configuration(annotation) else "a value"


def _one_error(kind: type, values: Mapping[str, Any], error: pydantic.ValidationError) -> InputError:
    """The first mistake among the values of one configuration."""
    mistake = error.errors(include_url=False)[0]
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # of a `__post_init__`: fields that do not go together
        return cause
    name = str(mistake["loc"][0])
    info = fields_of(kind).get(name)
    if info is None:
        return InputError(_unknown_field(kind, kind, name, ""), parameter=name)
    if name not in values:
        return InputError(f"is missing; use {described(info)}", parameter=name)
    value, words = values[name], described(info)
    if isinstance(value, int | float) and value >= 2**63 and "whole number" in words:
        words += f" and at most {_MOST}"
    return InputError(f"{shown(value)} is not {words}{_remedy(info, value)}", parameter=name)


def _remedy(info: FieldInfo, value: Any) -> str:
    """What would be right in place of a value, from "; use" on; empty where the field's description says it all."""
    if typing.get_origin(info.annotation) is Literal and isinstance(value, str):
        near = nearest(value, map(str, typing.get_args(info.annotation)))
        return f"; use {near}" if near else ""
    checked: Any = pydantic.TypeAdapter(Annotated[info.annotation, "value", *info.metadata], config=_SETTINGS)  # type: ignore[arg-type]
    for meant in _meant(value):
        try:
            checked.validate_python(meant)
        except pydantic.ValidationError:
            continue
        return f"; use {shown(meant)}{', without quotes' if shown(meant) == value else ''}"
    return "" if info.is_required() or info.default_factory else f"; use for instance {shown(info.default)}"


def _meant(value: Any) -> Iterable[Any]:
    """What may be meant by a value that is not right: a number in quotes, yes, 1_000, a name that is a number."""
    if isinstance(value, str):
        for text in (value, value.replace("_", ""), _BOOLEANS.get(value.lower(), value), f"[{value}]"):
            with contextlib.suppress(InputError):
                found = parse_yaml(text)
                yield tuple(found) if isinstance(found, list) else found
    elif isinstance(value, list):
        yield tuple(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
        yield (value,)


_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false", "none": "null"}


def _unknown_field(whole: type, kind: type, name: str, prefix: str) -> str:
    """The message for a field that `kind` does not have, whose own name within `whole` is `prefix`."""
    known = leaf_fields(kind)
    if name in known:
        section, _, field = name.rpartition(".")
        return f"is not a field here; use {field} below {prefix}{section}"
    elsewhere = [one for one in leaf_fields(whole) if one.rpartition(".")[2] == name]
    near = nearest(name, elsewhere or [*fields_of(kind), *known], alike=0.6 if prefix else ALIKE)
    if near and not elsewhere:
        near = " or ".join(prefix + one for one in near.split(" or "))
    near = near or nearest(name, leaf_fields(whole))
    return f"is not a field; use {near or 'one of ' + ', '.join(fields_of(kind))}"


def _item(info: FieldInfo) -> Any:
    """The type of the items of a list."""
    arguments = typing.get_args(info.annotation)
    return arguments[0] if typing.get_origin(info.annotation) is tuple and arguments else None


def _may_be_tuple(annotation: Any) -> bool:
    """Whether a type is a tuple, or a choice one of which is a tuple."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _may_be_tuple(arguments[0])
    return origin is tuple or (origin in (typing.Union, types.UnionType) and any(map(_may_be_tuple, arguments)))
