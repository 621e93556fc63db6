"""Mappings of mappings, as YAML and JSON hold them, and the dotted names of their fields."""

from collections.abc import Mapping
from typing import Any


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values by dotted name: {"a": {"b": 1}} to {"a.b": 1}; lists stay as they are. prefix: before each name."""
    fields: dict[str, Any] = {}
    for name, value in content.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return fields


def nested(name: str, value: Any) -> dict[str, Any]:
    """One field as nested mappings: "a.b" and 1 to {"a": {"b": 1}}."""
    *sections, last = name.split(".")
    content: dict[str, Any] = {last: value}
    for section in reversed(sections):
        content = {section: content}
    return content


def merge(content: dict[Any, Any], newer: Mapping[Any, Any]) -> None:
    """Writes the fields of `newer` over those of `content`; a section only over the fields that it has."""
    for name, value in newer.items():
        if isinstance(value, Mapping) and isinstance(content.setdefault(name, {}), dict):
            merge(content[name], value)
        else:
            content[name] = value


def has(content: Mapping[Any, Any], name: str) -> bool:
    """Whether a mapping has the field, or the section, of that dotted name."""
    here: Any = content
    for key in name.split("."):
        if not isinstance(here, Mapping) or key not in here:
            return False
        here = here[key]
    return True
