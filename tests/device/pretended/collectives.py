"""Collectives of torch.distributed by NCCL's rules, carried out by gloo on what the tensors hold."""

from typing import Any, NoReturn

import torch
import torch.distributed as dist
from device.pretended import graphs, order
from device.pretended.counts import COUNTS, place
from device.pretended.tensor import on_gpu
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_DTYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int32} | {
    torch.int64,
    torch.bool,
}
_OBJECTS = ("all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list")
_UNUSED = ("all_gather", "reduce_scatter", "send", "recv", "scatter", "gather", "reduce", "all_to_all")


class CollectiveError(RuntimeError):
    """A collective that NCCL refuses."""


def require_no_graphs() -> None:
    """Raises where the end of the group would wait for ever: for a CUDA graph that holds one of its collectives."""
    if graphs.hold_sums():
        raise CollectiveError("ncclCommDestroy waits for a CUDA graph that holds a sum over processes")


def install() -> None:
    """Replaces the collectives of torch.distributed."""
    start, all_reduce, broadcast = dist.init_process_group, dist.all_reduce, dist.broadcast
    leave = dist.destroy_process_group

    def init_process_group(backend: str | None = None, **others: Any) -> None:
        if backend != "nccl":
            raise CollectiveError(f"a group of GPUs is started with {backend}, not with nccl")
        start(backend="gloo", **others)

    def checked(name: str, values: Tensor) -> Tensor:
        if not on_gpu(values):
            raise CollectiveError(f"{name}: no backend type associated with device type cpu, at {place()}")
        if values.dtype not in _DTYPES:
            raise CollectiveError(f"{name}: {values.dtype} is not a type of NCCL, at {place()}")
        if not values.is_contiguous():
            raise CollectiveError(f"{name}: tensors must be contiguous, at {place()}")
        order.used([values.held], [values.held], [])
        return values.held

    def sum_of_all(values: Tensor, op: Any = dist.ReduceOp.SUM, **_: Any) -> None:
        content, counted = checked("all_reduce", values), (f"all_reduce {values.dtype}".replace("torch.", ""), place())

        def add_up() -> None:
            COUNTS.collectives[counted] += 1
            with _disable_current_modes():
                all_reduce(content, op=op)

        COUNTS.launches["all_reduce", place()] += not graphs.recording()
        graphs.note_sum(add_up, [content])

    def sent_to_all(values: Tensor, src: int = 0, **_: Any) -> None:
        graphs.refuse("broadcast")
        content = checked("broadcast", values)
        COUNTS.collectives[f"broadcast {values.dtype}".replace("torch.", ""), place()] += 1
        COUNTS.launches["broadcast", place()] += 1
        with _disable_current_modes():
            broadcast(content, src)

    def meet(*_: Any, **__: Any) -> None:
        COUNTS.waits["barrier", place()] += 1
        with _disable_current_modes():
            all_reduce(torch.zeros(1))

    def destroy_process_group(*words: Any) -> None:
        require_no_graphs()
        leave(*words)

    def refused(name: str, reason: str) -> Any:
        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise CollectiveError(f"{name}: {reason}, at {place()}")

        return refuse

    dist.init_process_group, dist.all_reduce, dist.broadcast = init_process_group, sum_of_all, sent_to_all
    dist.barrier, dist.destroy_process_group = meet, destroy_process_group
    dist.get_backend = lambda group=None: "nccl"
    for name in _OBJECTS:
        setattr(dist, name, refused(name, "it sends pickles through the host"))
    for name in _UNUSED:
        setattr(dist, name, refused(name, "the pretended device does not know it"))
