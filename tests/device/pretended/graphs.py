"""torch.cuda.CUDAGraph: operations that are written down instead of done, and done again with the same memory.

To know the form of each result a recording does compute, but what it overwrote is put back at its end. A replay reads
numbers of the host as they were when it was recorded, as a real one does, and tensors of the GPU where they lay.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from device.pretended.counts import COUNTS, place
from device.pretended.nested import tensors_in
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

CaptureStep = Callable[[], None]
_running: list["CUDAGraph"] = []
_with_sums: set["CUDAGraph"] = set()


def recording() -> bool:
    """Whether what is asked for is written down."""
    return bool(_running)


def refuse(what: str) -> None:
    """Raises where a recording is running, which CUDA then ends."""
    if _running:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what}, at {place()})")


class CUDAGraph:
    """The steps of one recording."""

    def __init__(self) -> None:
        self.steps: list[CaptureStep] = []
        self._made: dict[int, Any] = {}
        self._overwritten: dict[int, tuple[Any, Tensor]] = {}

    def reset(self) -> None:
        """Gives the graph up, as its end does for a real one."""
        self.steps.clear()
        _with_sums.discard(self)

    def replay(self) -> None:
        """Does all steps again."""
        COUNTS.launches["graph", place()] += 1
        with torch.no_grad(), _disable_current_modes():
            for step in self.steps:
                step()

    def writes(self, tensors: Iterable[Tensor]) -> None:
        """Notes that these tensors of the CPU are about to be overwritten."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in self._made and address not in self._overwritten:
                self._overwritten[address] = (storage, _bytes(storage).clone())

    def end(self) -> None:
        """Puts back what the recording overwrote."""
        for storage, content in self._overwritten.values():
            _bytes(storage).copy_(content)

    def makes(self, tensors: Iterable[Tensor]) -> None:
        """Notes tensors that the recording made."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._made.setdefault(storage.data_ptr(), storage)


def _bytes(storage: Any) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class graph:
    """torch.cuda.graph: the block that is recorded."""

    def __init__(self, cuda_graph: CUDAGraph, **_: object) -> None:
        self._graph = cuda_graph

    def __enter__(self) -> None:
        _running.append(self._graph)

    def __exit__(self, kind: object, *_: object) -> None:
        with torch.no_grad(), _disable_current_modes():
            _running.pop().end()
        if kind is not None:
            self._graph.reset()


def carried_out(function: Callable[..., Any], args: Any, kwargs: Any, written: list[Tensor], *, view: bool) -> Any:
    """The result of an operation on tensors of the CPU, which a recording that is running notes."""
    if not _running:
        return function(*args, **kwargs)
    running = _running[-1]
    running.writes(written)
    result = function(*args, **kwargs)
    outputs = [] if written or view else tensors_in(result)
    running.makes(outputs)
    if view:
        return result

    def step() -> None:
        again = function(*args, **kwargs)
        for output, value in zip(outputs, tensors_in(again), strict=False):
            output.copy_(value)

    running.steps.append(step)
    return result


def note_sum(step: CaptureStep, written: list[Tensor]) -> None:
    """Does a sum over processes, and notes it in a recording that is running."""
    if _running:
        _running[-1].writes(written)
        _running[-1].steps.append(step)
        _with_sums.add(_running[-1])
    step()


def hold_sums() -> bool:
    """Whether a graph that has not been reset holds a sum over processes. Python may collect others at any time."""
    return bool(_with_sums)


def frozen(value: Any) -> Any:
    """Arguments as a recording keeps them: numbers of the host cannot change any more."""
    return value.clone() if _running and isinstance(value, Tensor) else value
