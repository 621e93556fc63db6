"""YAML files that people write, read strictly: numbers as in YAML 1.2, no key twice, no number that is not finite."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from data_shards.io.errors import InputError


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
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
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
