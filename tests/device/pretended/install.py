"""Makes torch believe in a GPU. It cannot be undone: it is for a process of its own."""

import os
from typing import Any

import torch
from device.pretended import collectives, graphs, order, settings
from device.pretended.tensor import GpuMode, from_data
from torch import Tensor, nn
from torch.utils._device import _device_constructors

NAME = "pretended GPU"
_MEMORY = 80 * 2**30


class _Properties:
    name, total_memory, multi_processor_count, major, minor = NAME, _MEMORY, 132, 9, 0


def install() -> None:
    """Makes all tensors on "cuda" pretended ones, and torch.cuda what they need."""
    torch._C._ensureCUDADeviceGuardSet()
    _device_constructors()  # torch.device as a block knows the functions by what they are at its first call
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "device_count": _device_count,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: _Properties,
        "mem_get_info": lambda device=None: (_MEMORY, _MEMORY),
        "max_memory_allocated": lambda device=None: 2**20,
        "memory_allocated": lambda device=None: 2**20,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "set_sync_debug_mode": settings.set_sync_debug_mode,
        "synchronize": lambda device=None: order.current_stream().synchronize(),
        "is_current_stream_capturing": graphs.recording,
        "CUDAGraph": graphs.CUDAGraph,
        "graph": graphs.graph,
        "Stream": order.Stream,
        "Event": order.Event,
        "stream": order.stream,
        "current_stream": order.current_stream,
        "default_stream": order.default_stream,
    }
    for name, value in cuda.items():
        setattr(torch.cuda, name, value)
    torch.tensor = from_data
    Tensor.pin_memory = lambda self, device=None: order.pin(self)  # type: ignore[method-assign]
    Tensor.is_pinned = lambda self, device=None: order.is_pinned(self)  # type: ignore[method-assign]
    _empty = torch.empty

    def empty(*size: Any, pin_memory: bool = False, **others: Any) -> Tensor:
        made = _empty(*size, **others)
        return order.pin(made) if pin_memory else made

    torch.empty = empty
    nn.Module._apply = _apply  # type: ignore[method-assign, assignment]
    # Tensors of inference mode cannot be subclassed.
    torch.inference_mode = torch.no_grad  # type: ignore[assignment, misc]
    collectives.install()
    GpuMode().__enter__()


def _device_count() -> int:
    """As many as CUDA_VISIBLE_DEVICES names; without it one for each process of the job."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return int(os.environ.get("WORLD_SIZE", "1")) if named is None else len(named.split(","))


def _apply(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """nn.Module._apply, which replaces parameters: memory of the CPU cannot become memory of the GPU in place."""
    for child in self.children() if recurse else ():
        child._apply(fn)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = fn(parameter)
            if moved is not parameter:
                self._parameters[name] = nn.Parameter(moved.detach(), parameter.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self
