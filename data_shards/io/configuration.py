"""Configurations: frozen dataclasses whose types state the ranges, built strictly from what a YAML file holds.

A class under `@configuration` has fields such as `workers: NonNegativeInt = 0`, each with its meaning as a text below;
`read_configuration(ThatClass, path)` reads a file. Whatever is wrong with it is one line:
`workers: -1 is not a whole number of at least 0; use for instance 0 (in FILE)`.

YAML files are read strictly: numbers as in YAML 1.2, no key twice, no number that is not finite.
"""

import ast
import collections.abc
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import os
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic
import yaml
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from data_shards.io.errors import InputError

T = TypeVar("T")


def _whole(value: Any) -> Any:
    if isinstance(value, int | float) and not abs(value) < 2**63:
        raise ValueError("more than 64 bits")
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
        description="a name of letters, digits, dots, dashes and underscores",
    ),
]
"""The name of a folder, or of a row."""
PathText = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file, folder or address; ~ is the home folder."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, Field))
def configuration(kind: type[T]) -> type[T]:
    """Makes a class a frozen, keyword-only dataclass whose values are checked against their types when it is made.

    Nothing is converted but a list to a tuple and 1e6 to a whole number. What fields may be together is checked in
    `__post_init__`, which raises InputError(message, parameter=name of the field). Making one raises InputError.
    """
    settings = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    made = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=settings)(kind)
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


def build(kind: type[T], content: Any, name: str = "") -> T:
    """A configuration from nested mappings, as YAML has them.

    name: of the section that `content` is, for messages. Raises InputError(parameter=dotted name of the field).
    """
    if not isinstance(content, Mapping):
        what = "is empty" if content is None else f"{shown(content)} is not a section"
        some = ", ".join(list(fields_of(kind))[:3])
        raise InputError(f"{what}; use fields below it, such as {some}, or leave it out", parameter=name or None)
    prefix, values = f"{name}." if name else "", {}
    for field, value in content.items():
        info = fields_of(kind).get(field)
        if info is None:
            field = field if isinstance(field, str) else shown(field)
            raise InputError(_unknown_field(kind, field, prefix), parameter=f"{prefix}{field}")
        item = _item(info)
        if is_configuration(info.annotation):
            value = build(typing.cast(type, info.annotation), value, f"{prefix}{field}")
        elif is_configuration(item) and isinstance(value, list):
            value = tuple(build(item, one, f"{prefix}{field}[{at}]") for at, one in enumerate(value))
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


def in_file(error: InputError, path: str | Path) -> InputError:
    """The same error with the name of the file in which the field stands."""
    return InputError(f"{error.named(None)} (in {path})", parameter=error.parameter)


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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    known = list(known)
    last = {one.rpartition(".")[2]: one for one in known}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = close or [last[one] for one in difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.6)]
    return close[0] if close else None


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
        return InputError(_unknown_field(kind, name, ""), parameter=name)
    if name not in values:
        return InputError(f"is missing; use {described(info)}", parameter=name)
    value, choices = values[name], typing.get_args(info.annotation)
    if typing.get_origin(info.annotation) is Literal and isinstance(value, str):
        near = nearest(value, map(str, choices))
        remedy = f"; use {near}" if near else ""
    else:
        remedy = "" if info.is_required() or info.default_factory else f"; use for instance {shown(info.default)}"
    return InputError(f"{shown(value)} is not {described(info)}{remedy}", parameter=name)


def _unknown_field(kind: type, name: str, prefix: str) -> str:
    """The message for a field that `kind`, whose own name is `prefix`, does not have."""
    known = leaf_fields(kind)
    if name in known:
        section, _, field = name.rpartition(".")
        return f"is not a field here; use {field} below {prefix}{section}"
    near = nearest(name, [*fields_of(kind), *known])
    return f"is not a field; use {prefix}{near}" if near else f"is not a field; use one of {', '.join(fields_of(kind))}"


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


class _StrictLoader(yaml.SafeLoader):
    """The scalars of YAML 1.2's core schema: 1e-3 is a number, and neither `on` nor 2026-01-31 is more than a text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise InputError(f"line {line}: {key!r} is not a name")
            if key in lines:
                raise InputError(f"line {line}: {key!r} stands in line {lines[key]} already; leave one of them")
            lines[key] = line
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)

    def number(self, node: yaml.ScalarNode) -> float:
        try:
            value = float(node.value)
        except ValueError:
            value = math.inf  # .inf and .nan
        if not math.isfinite(value):
            raise InputError(f"line {node.start_mark.line + 1}: {node.value} is not a finite number; use one")
        return value


class _Dumper(yaml.SafeDumper):
    """Quotes a text that is more than a text in YAML 1.1 or 1.2."""


_MERGE = "tag:yaml.org,2002:merge"
for _tag, _pattern in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    ("merge", r"<<"),
):
    for _kind in (_StrictLoader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), None)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.whole_number)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.number)


def parse_yaml(text: str) -> Any:
    """What a YAML text holds. Raises InputError, in one line that begins with `line N`, where it is not valid."""
    try:
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{line}{error.problem or 'not valid YAML'}") from error
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("nested too deeply, or a number is too long; use plain values") from error


def read_yaml(path: str | Path) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises InputError, in one line that begins with `path`, where it is none."""
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if content is None or content == {}:
        raise InputError(f"{path}: is empty; write fields into it, `name: value` each")
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no fields; write them as `name: value`, one a line")
    return content


def dump_yaml(content: Any) -> str:
    """The text of plain mappings, lists, texts and numbers, in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
