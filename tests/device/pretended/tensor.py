"""Tensors that say they are on cuda:0 and hold a tensor of the CPU.

Each operation is looked at before it is computed: operands on two devices raise as CUDA raises, `numpy()` raises, and
what launches a kernel, makes the host wait or copies from pageable memory is counted.
"""

import functools
import threading
from typing import Any

import torch
from device.pretended import graphs, order, settings
from device.pretended.counts import COUNTS, place, runs_in
from device.pretended.nested import mapped, tensors_in
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
_of_thread = threading.local()


class DeviceMixError(RuntimeError):
    """Operands on two devices, or something that CUDA cannot do with a tensor of the GPU."""


class GpuTensor(Tensor):
    """A tensor on the pretended GPU; `held` is its tensor on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> "GpuTensor":
        _of_thread.makes_meta = True
        try:
            meta = torch.empty_strided(held.size(), held.stride(), dtype=held.dtype, device="meta")
        finally:
            _of_thread.makes_meta = False
        made = Tensor._make_subclass(cls, meta, requires_grad, dispatch_device=False, device_for_backend_keys=GPU)
        made.held = held
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    is_cuda, is_cpu, is_meta = property(lambda _: True), property(lambda _: False), property(lambda _: False)  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"GpuTensor({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "GpuTensor":
        copy = GpuTensor(self.held.detach().clone(), self.requires_grad)
        order.used([], [], [copy.held])
        memo[id(self)] = copy
        return copy

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory."
        )

    def __array__(self, dtype: object = None, copy: object = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        _wait("tolist")
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def record_stream(self, stream: Any) -> None:
        order.record_stream(self.held, stream)

    def pin_memory(self, device: object = None) -> Tensor:
        raise DeviceMixError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return from_data(data, dtype=dtype or self.dtype, device=device or GPU, requires_grad=requires_grad)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class GpuMode(TorchDispatchMode):
    """Also sees operations without a tensor of the GPU, which may make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].device
        return dispatch(func, args, kwargs or {})


def on_gpu(value: Any) -> bool:
    """Whether it is a tensor of the pretended GPU."""
    return isinstance(value, GpuTensor)


def held(value: Any) -> Any:
    """The tensor of the CPU behind one of the GPU; anything else as it is."""
    return value.held if isinstance(value, GpuTensor) else value


_torch_tensor = torch.tensor


def from_data(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """torch.tensor, which copies numbers of the host from pageable memory."""
    if not _is_gpu(device):
        if on_gpu(data) or (isinstance(data, list | tuple) and any(map(on_gpu, data))):
            _wait("numbers of the GPU in torch.tensor")
        made = _torch_tensor(mapped(held, data), dtype=dtype, requires_grad=requires_grad)
        return order.pin(made) if pin_memory else made
    _wait("torch.tensor copies from pageable memory")
    _launch("copy_")
    made = _torch_tensor(mapped(held, data), dtype=dtype)
    order.used([], [], [made])
    return GpuTensor(made, requires_grad)


# Where the project itself asks for the meta device. Elsewhere torch's C++ does, to make a tensor like another one:
# behind a tensor of the GPU it sees one of the meta device.
_ON_META = ("trainer/trial_batch.py", "trainer/dry_run.py", "trainer/roofline.py")


def _is_gpu(device: Any) -> bool:
    kind = None if device is None else torch.device(device).type
    return kind == "cuda" or (kind == "meta" and not runs_in(_ON_META))


def _wait(reason: str) -> None:
    graphs.refuse(reason)
    settings.refuse_wait(reason)
    COUNTS.waits[reason, place()] += 1
    order.complete(order.now())


def _launch(name: str) -> None:
    if graphs.recording():
        return
    COUNTS.launches[name, place()] += 1


# Operands of a copy may be on two devices, and so may the indices of an index.
_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXED = {
    aten.index.Tensor: 1,
    aten.index_put_.default: 1,
    aten.index_put.default: 1,
    aten._index_put_impl_.default: 1,
    aten._unsafe_index.Tensor: 1,
    aten._unsafe_index_put.default: 1,
}
_WAITING = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.bincount.default: "bincount",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.is_nonzero.default: "bool",
    aten.equal.default: "equal",
    aten._linalg_check_errors.default: "check of a factorisation",
}
# What CUDA does for one matrix of a batch after another; the last two in more than 32 dimensions.
_LOOPS = {"cholesky_inverse", "cholesky_solve", "_linalg_svd", "_linalg_eigh", "linalg_eigvalsh"}
# They compute nothing; views do not either.
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_FREE = {"detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "record_stream", "set_", "resize_"}


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation, on the GPU where one of its tensors is or where it is asked for."""
    if getattr(_of_thread, "makes_meta", False):
        return func(*args, **kwargs)
    tensors = tensors_in((args, kwargs))
    from_gpu = any(map(on_gpu, tensors))
    if from_gpu and func not in _COPIES:
        _check_devices(func, args, tensors)
    if func in _COPIES:
        return _copied(func, args, kwargs)
    device = kwargs.get("device")
    to_gpu = from_gpu if device is None else _is_gpu(device)
    if not (to_gpu or from_gpu):
        return func(*args, **kwargs)
    if to_gpu and kwargs.get("generator") is not None:
        raise DeviceMixError(f"Expected a 'cuda' device type for generator but found 'cpu', at {place()}")
    if from_gpu and func in _WAITING:
        _wait(_WAITING[func])
    name = _name(func)
    settings.refuse_without_order(name)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    result = _done(func, args, kwargs)
    wrapped = mapped(lambda value: GpuTensor(value) if to_gpu and type(value) is Tensor else value, result)
    if name in _ALLOCATIONS:
        _note_order(func, args, kwargs, [], wrapped)
    elif not (func.is_view or name in _FREE):
        _launch(f"{name}, one matrix after another" if name in _LOOPS and tensors[0].dim() > 2 else name)
        _note_order(func, args, kwargs, tensors, wrapped)
    return _with_written_arguments(func, args, kwargs, wrapped)


def _done(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of an operation on what the tensors hold."""
    written = [held(value) for value in tensors_in(_written(func, args, kwargs))]
    inner, named = mapped(_kept, args), mapped(_kept, kwargs)
    view = func.is_view or _name(func) in _ALLOCATIONS | _FREE
    return graphs.carried_out(func, inner, named, written, view=view)


def _kept(value: Any) -> Any:
    """What an operation works on. Numbers of the host are those of now, also where a recording repeats it."""
    return value.held if on_gpu(value) else graphs.frozen(value)


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that an operation writes."""
    return [args[number] if number < len(args) else kwargs.get(name) for number, name in _written_places(func)]


@functools.cache
def _written_places(func: Any) -> list[tuple[int, str]]:
    """Number and name of each argument that an operation writes."""
    return [
        (number, argument.name)
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


@functools.cache
def _are_written(func: Any) -> list[bool]:
    """Whether each result of an operation is an argument that it wrote; empty where none is."""
    found = [value.alias_info is not None and value.alias_info.is_write for value in func._schema.returns]
    return found if any(found) else []


@functools.cache
def _name(func: Any) -> str:
    return func._schema.name.split("::")[1]


def _note_order(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], wrapped: Any) -> None:
    written = [value.held for value in tensors_in(_written(func, args, kwargs)) if on_gpu(value)]
    made = [] if written else [value.held for value in tensors_in(wrapped) if on_gpu(value)]
    order.used([value.held for value in tensors if on_gpu(value)], written, made)


def _check_devices(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raises as CUDA raises where operands are on two devices. Tensors of the CPU without dimensions are numbers."""
    indices = []
    if func in _INDEXED:
        indices = tensors_in(args[_INDEXED[func]])
        if not on_gpu(args[0]):
            raise DeviceMixError(
                f"{func}: indices should be either on cpu or on the same device as the indexed tensor, at {place()}"
            )
        for index in indices:
            if index.dtype in (torch.bool, torch.uint8):
                _wait("an index of flags")
            elif not on_gpu(index):
                _wait("an index from pageable memory")
    is_index = {id(index) for index in indices}
    for tensor in tensors:
        if not on_gpu(tensor) and tensor.dim() > 0 and id(tensor) not in is_index:
            raise DeviceMixError(
                f"{func}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"cpu! at {place()}"
            )


def _copied(func: Any, args: Any, kwargs: Any) -> Any:
    """A copy within a device, or between the host and the GPU."""
    into = func is aten.copy_.default
    source = args[1] if into else args[0]
    if into:
        target_on_gpu = on_gpu(args[0])
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    else:
        device = kwargs.get("device")
        target_on_gpu = on_gpu(source) if device is None else _is_gpu(device)
        non_blocking = kwargs.get("non_blocking", False)
    plain = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory", "non_blocking")}
    if not (target_on_gpu or on_gpu(source)):
        return func(*args, **kwargs)
    _launch("copy_")
    if target_on_gpu and on_gpu(source):
        if into:
            _done(func, (args[0], source), {})
            result = args[0]
        else:
            copied = _done(func, (source,), plain)
            result = GpuTensor(copied.clone() if copied is source.held else copied)
        order.used([source.held], [result.held] if into else [], [] if into else [result.held])
        return result
    if target_on_gpu:
        layout = plain.get("memory_format", torch.preserve_format)
        as_it_lies = into or layout == torch.preserve_format or source.is_contiguous(memory_format=layout)
        graphs.refuse("a copy from the host would read what is there at each replay")
        if order.is_pinned(source) and non_blocking and as_it_lies:
            COUNTS.copies["to the GPU", place()] += 1
            order.copy_to_device(source)
        else:
            _wait(
                "a copy from " + ("pinned memory that is waited for" if order.is_pinned(source) else "pageable memory")
            )
        if into:
            args[0].held.copy_(source)
            order.used([], [args[0].held], [])
            return args[0]
        made = GpuTensor(func(source, **plain).clone(memory_format=torch.preserve_format))
        order.used([], [], [made.held])
        return made
    graphs.refuse("a copy to the host")
    if into and order.is_pinned(args[0]) and non_blocking:
        COUNTS.copies["to the host", place()] += 1
        order.used([source.held], [], [])
        order.copy_to_host(args[0], source.held.to(args[0].dtype))
        return args[0]
    _wait("a copy to the host")
    if into:
        return args[0].copy_(source.held)
    copied = func(source.held, **plain)
    return copied.clone() if copied is source.held else copied


def _with_written_arguments(func: Any, args: Any, kwargs: Any, wrapped: Any) -> Any:
    """What an operation returns: the arguments that it wrote in place of copies of them."""
    are_written = _are_written(func)
    if not are_written:
        return wrapped
    written = iter(_written(func, args, kwargs))
    outputs = wrapped if isinstance(wrapped, tuple | list) else (wrapped,)
    found = [next(written) if is_written else output for is_written, output in zip(are_written, outputs, strict=False)]
    return type(wrapped)(found) if isinstance(wrapped, tuple | list) else found[0]
