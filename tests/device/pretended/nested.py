"""Tensors within the arguments and results of an operation: lists, tuples and dicts of them, and nothing else.

torch.utils._pytree knows more kinds, and takes as long as all the rest of an operation on the pretended GPU.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors, in order."""
    found: list[Tensor] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, list | tuple):
        for part in value:
            _collect(part, found)
    elif isinstance(value, dict):
        for part in value.values():
            _collect(part, found)


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same lists, tuples and dicts with `function` of all that is in them."""
    if isinstance(value, list | tuple):
        parts = [mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: mapped(function, part) for key, part in value.items()}
    return function(value)
