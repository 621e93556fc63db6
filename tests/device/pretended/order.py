"""When work of a pretended GPU is done: streams, events, pinned memory, and what a program may not rely on before.

The GPU of a real machine works behind the host. Here everything is computed at once, but what the host may not see yet
is hidden from it: memory that a copy to the host fills holds nonsense until an event after the copy was waited for, and
memory that a copy to the GPU reads must not have changed by then. A tensor that one stream writes and another one uses
without waiting for it is an error.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from device.pretended.counts import COUNTS, place
from torch import Tensor


class RaceError(RuntimeError):
    """The program relies on work of the GPU that nothing says is done."""


_numbers = itertools.count(1)
_pinned: dict[int, Any] = {}  # storages by address, kept so that no address is used twice
_streams: list["Stream"] = []
_of_thread = threading.local()


@dataclass
class _Copy:
    number: int
    host: Tensor
    content: Tensor
    to_host: bool


_in_flight: list[_Copy] = []
_written: dict[int, tuple[int, int]] = {}  # (stream, number) of the last write of each storage by its address
_read: dict[int, tuple[int, int]] = {}
_home: dict[int, int] = {}  # the stream in which each storage was made
_recorded: set[tuple[int, int]] = set()


def now() -> int:
    """The number of the newest piece of work."""
    return next(_numbers)


class Stream:
    """torch.cuda.Stream: work in the order in which it is asked for."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        self.index = len(_streams)
        self.seen = {self.index: 2**62}
        _streams.append(self)

    def wait_event(self, event: "Event") -> None:
        """Later work of this stream comes after the event."""
        self.seen[event.stream] = max(self.seen.get(event.stream, 0), event.number)

    def wait_stream(self, other: "Stream") -> None:
        """Later work of this stream comes after what `other` was asked for so far."""
        self.seen[other.index] = now()

    def record_event(self, event: "Event | None" = None) -> "Event":
        """An event after the work of this stream so far."""
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        """The host waits for the work so far."""
        COUNTS.waits["stream synchronize", place()] += 1
        complete(now())


Stream()  # the default one


class Event:
    """torch.cuda.Event."""

    def __init__(self, **_: object) -> None:
        self.number = self.stream = 0

    def record(self, stream: Stream | None = None) -> None:
        """After the work of the stream so far."""
        self.number, self.stream = now(), (stream or current_stream()).index

    def wait(self, stream: Stream | None = None) -> None:
        """Later work of the stream comes after the event."""
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        """Whether the work before the event is done."""
        return all(copy.number > self.number for copy in _in_flight)

    def synchronize(self) -> None:
        """The host waits for the event. Work that was asked for after it goes on: counted as a wait of its own kind."""
        behind = any(copy.number > self.number for copy in _in_flight)
        COUNTS.waits["event synchronize, " + ("with later work" if behind else "of the newest work"), place()] += 1
        complete(self.number)


def current_stream(device: object = None) -> Stream:
    """The stream that gets what is asked for."""
    return _streams[getattr(_of_thread, "index", 0)]


def default_stream(device: object = None) -> Stream:
    """The first stream."""
    return _streams[0]


@contextlib.contextmanager
def stream(chosen: Stream | None) -> Iterator[None]:
    """The block whose work goes to the chosen stream."""
    before = current_stream().index
    _of_thread.index = before if chosen is None else chosen.index
    try:
        yield
    finally:
        _of_thread.index = before


def pin(tensor: Tensor) -> Tensor:
    """A copy of a tensor of the host in pinned memory."""
    copy = tensor.clone()
    storage = copy.untyped_storage()
    _pinned[storage.data_ptr()] = storage
    return copy


def is_pinned(tensor: Tensor) -> bool:
    """Whether a tensor of the host is in pinned memory."""
    return tensor.untyped_storage().data_ptr() in _pinned


def copy_to_host(host: Tensor, values: Tensor) -> None:
    """Begins a copy to pinned memory, which holds nonsense until it is waited for."""
    _in_flight.append(_Copy(now(), host, values.clone(), to_host=True))
    host.fill_(float("nan") if host.is_floating_point() else 77)


def copy_to_device(host: Tensor) -> None:
    """Begins a copy from pinned memory, which must not change until it is waited for."""
    _in_flight.append(_Copy(now(), host, host.clone(), to_host=False))


def complete(number: int) -> None:
    """Work up to that number is done. Raises RaceError where it copied memory that was changed meanwhile."""
    done = [copy for copy in _in_flight if copy.number <= number]
    _in_flight[:] = [copy for copy in _in_flight if copy.number > number]
    for copy in done:
        if copy.to_host:
            copy.host.copy_(copy.content)
        elif not torch.equal(copy.host, copy.content):
            raise RaceError(f"pinned memory was changed while a copy of it to the GPU was running, at {place()}")


def record_stream(tensor: Tensor, other: Stream) -> None:
    """The memory of a tensor is not given away before the other stream has done what it was asked for so far."""
    _recorded.add((tensor.untyped_storage().data_ptr(), other.index))


def used(tensors: list[Tensor], written: list[Tensor], made: list[Tensor]) -> None:
    """Notes what an operation of the current stream reads, writes in place, and makes.

    Raises RaceError where another stream may still write or read it, or where its memory may be given away too early.
    """
    if len(_streams) == 1:
        return
    number, here = now(), current_stream()
    current, seen = here.index, here.seen
    for tensor in tensors:
        address = tensor.untyped_storage().data_ptr()
        at, when = _written.get(address, (0, 0))
        if at != current and seen.get(at, 0) < when:
            raise RaceError(f"a tensor is used that another stream writes; wait for an event of it, at {place()}")
        if _home.get(address, current) != current and (address, current) not in _recorded:
            raise RaceError(f"a tensor of another stream's memory is used without record_stream, at {place()}")
        _read[address] = (current, number)
    for tensor in written:
        address = tensor.untyped_storage().data_ptr()
        at, when = _read.get(address, (0, 0))
        if at != current and seen.get(at, 0) < when:
            raise RaceError(f"a tensor is written that another stream still reads, at {place()}")
        _written[address] = (current, number)
    for tensor in made:
        address = tensor.untyped_storage().data_ptr()
        _written[address], _home[address] = (current, number), current
        _read.pop(address, None)
        _recorded.difference_update([(address, stream.index) for stream in _streams])
