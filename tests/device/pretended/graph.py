"""A pretended torch.cuda.CUDAGraph: operations on fixed tensors, recorded once and done again.

As with the real one, what is recorded reads and writes the same memory each time, numbers of the host are those of the
recording, and the host may not wait while it is made.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from device.pretended.counts import COUNTS, place
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten

_recording: "Graph | None" = None


class CaptureError(RuntimeError):
    """Something that cannot be part of a CUDA graph."""


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._steps: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        """Does everything again, by one launch."""
        COUNTS.launches["graph", place()] += 1
        with _disable_current_modes(), torch.no_grad():
            for func, args, kwargs, result in self._steps:
                again = func(*args, **kwargs)
                for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def reset(self) -> None:
        """Forgets everything."""
        self._steps.clear()

    def pool(self) -> tuple[int, int]:
        """Names its memory."""
        return (id(self), 0)


@contextlib.contextmanager
def capture(graph: Graph, pool: object = None, stream: object = None, **_: object) -> Iterator[None]:
    """torch.cuda.graph: the block whose operations are recorded. They are also done, unlike on a real GPU."""
    global _recording
    _recording = graph
    try:
        yield
    finally:
        _recording = None


def is_recording() -> bool:
    """torch.cuda.is_current_stream_capturing."""
    return _recording is not None


def forbid(what: str) -> None:
    """Raises CaptureError while a graph is recorded."""
    if _recording is not None:
        raise CaptureError(f"operation not permitted when stream is capturing: {what}, at {place()}")


def record(func: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Adds an operation to the graph that is being recorded."""
    if _recording is not None:
        _recording._steps.append((func, args, kwargs, result))
