"""YAML files, read strictly: plain values, numbers as in YAML 1.2, no key twice, no number that is not finite.

What is wrong is one line with the field, the line and the file: `data.workers: line 3: stands in line 2 already; leave
one of them (in FILE)`.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.text import read_settings


class _StrictLoader(yaml.SafeLoader):
    """The scalars of YAML 1.2's core schema: 1e-3 is a number, and neither `on` nor 2026-01-31 is more than a text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)

    def number(self, node: yaml.ScalarNode) -> float:
        return float(node.value)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that is more than a text in YAML 1.1 or 1.2."""


_MERGE, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("merge", "int", "float"))
for _tag, _pattern in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    ("merge", r"<<"),
):
    for _kind in (_StrictLoader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), None)
_StrictLoader.add_constructor(_INT, _StrictLoader.whole_number)
_StrictLoader.add_constructor(_FLOAT, _StrictLoader.number)
# By default Python turns no longer text into a number.
_MOST_DIGITS = 4000
# A file of settings is at most 1 MB; a few lines of aliases of aliases stand for more than any memory holds.
_MOST_VALUES = 1_000_000


def _check(node: yaml.Node, field: str, values: dict[int, int]) -> int:
    """Raises InputError for the first mistake at or below a node that YAML itself allows.

    field: its dotted name. values: of the nodes that were looked at, how many values they stand for; 0 of those above
    this one. Returns this number, in which an alias counts as what it stands for.
    """
    if id(node) in values:  # reached through an alias
        if not values[id(node)]:
            raise _mistake(node, "an alias stands within what it names; write the values themselves", field)
        return values[id(node)]
    values[id(node)], count = 0, 1
    if isinstance(node, yaml.MappingNode):
        count += _check_mapping(node, field, values)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_check(item, f"{field}[{place}]", values) for place, item in enumerate(node.value))
    elif node.tag in (_INT, _FLOAT):
        if len(node.value) > _MOST_DIGITS:
            raise _mistake(node, f"a number of {len(node.value)} digits; use a shorter one", field)
        if node.tag == _FLOAT and not _is_finite(node.value):
            raise _mistake(node, f"{node.value} is not a finite number; use one", field)
    if count > _MOST_VALUES:
        raise _mistake(node, f"its aliases stand for more than {_MOST_VALUES:,} values; use fewer", field)
    values[id(node)] = count
    return count


def _check_mapping(node: yaml.MappingNode, field: str, values: dict[int, int]) -> int:
    lines, count = dict[str, int](), 0
    for key, value in node.value:
        if key.tag == _MERGE:
            count += _check(value, field, values)
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise _mistake(key, "a list or section stands where a name must; use a name", field)
        name = f"{field}.{key.value}" if field else key.value
        if key.value in lines:
            raise _mistake(key, f"stands in line {lines[key.value]} already; leave one of them", name)
        lines[key.value] = key.start_mark.line + 1
        count += _check(value, name, values)
    return count


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False  # .inf and .nan


def _mistake(node: yaml.Node, message: str, field: str) -> InputError:
    return InputError(f"line {node.start_mark.line + 1}: {message}", parameter=field or None)


def parse_yaml(text: str) -> Any:
    """What a YAML text holds. Raises InputError, in one line with the line and, where one is wrong, the field."""
    try:
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, "", {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{line}{_in_words(error.problem or 'not valid YAML')}") from error
    except yaml.reader.ReaderError as error:
        line = f"line {text.count(chr(10), 0, error.position) + 1}"
        raise InputError(f"{line}: holds the character {_shown(error.character)}; remove it") from error
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("nested too deeply, or a value does not fit its tag; use plain values") from error


def _shown(character: int | str | bytes) -> str:
    number = character if isinstance(character, int) else ord(character)
    return f"#x{number:04x}"


def _in_words(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab stands where spaces must; indent with spaces"
    if "another document" in problem:
        return "a second document begins; keep one"
    return problem


def read_yaml(path: str | Path) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises InputError, in one line with `path`, where it is none."""
    try:
        text = read_settings(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file in UTF-8; save it as one") from error
    except OSError as error:
        raise_machine_fault(error, path)
        raise InputError(f"{path}: cannot be read: {error.strerror}; use a YAML file") from error
    try:
        content = parse_yaml(text)
    except InputError as error:
        if error.parameter:
            raise in_file(error, path) from error
        raise InputError(f"{path}: {error}") from error
    if content is None or content == {}:
        raise InputError(f"{path}: is empty; write fields into it, `name: value` each")
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no fields; write them as `name: value`, one a line")
    return content


def in_file(error: InputError, path: str | Path) -> InputError:
    """The same error with the name of the file in which the field stands."""
    return InputError(f"{error.named(None)} (in {path})", parameter=error.parameter)


def dump_yaml(content: Any) -> str:
    """The text of plain mappings, lists, texts and numbers, in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
