"""Sums over the processes of one machine through memory that they share.

gloo sends every gradient through the loopback network, and lets a process that waits sleep, which took a fifth of an
update of two processes. Here numbers are added in the order of the ranks, so that a sum does not depend on where it
lies in a buffer either.
"""

import fcntl
import itertools
import math
import os
import platform
import secrets
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.process_group import Ranks

SHARED_FOLDER = Path("/dev/shm")
_PREFIX = "sigma-vae-"
# Every process reads the numbers of all: with more of them, gloo's ring does less.
_LARGEST_BYTES = 2**29
# Stores become visible in their order on these processors, so that a mark says that the numbers before it are there.
_ORDERED = ("x86_64", "AMD64")
# A line of the cache for the mark of each process, and numbers summed beside the gradients.
_LINE, _TOTALS = 8, 16
_SECONDS_AWAKE, _SECONDS_BETWEEN_LOOKS, _LONGEST_WAIT = 0.002, 1.0, 1800.0


class HostSum:
    """A buffer for each process, twice, that all of them see; made by `open_host_sum`.

    The two halves take turns: a process that fills one again has met the others since they read it.
    """

    def __init__(self, handle: int, ranks: Ranks, numbers: int) -> None:
        self._handle, self._rank, self._world_size = handle, ranks.rank, ranks.world_size
        weakref.finalize(self, os.close, handle)  # the memory has no name: it lasts as long as it is open
        memory = np.memmap(os.fdopen(os.dup(handle), "r+b"), dtype=np.uint8, mode="r+")
        marks, totals = (8 * math.prod(shape) for shape in ((self._world_size, _LINE), (2, self._world_size, _TOTALS)))
        self._marks = memory[:marks].view(np.int64).reshape(self._world_size, _LINE)[:, 0]
        rest = torch.from_numpy(memory[marks:])
        self._totals = rest[:totals].view(torch.float64).view(2, self._world_size, _TOTALS)
        self._halves = rest[totals:].view(torch.float32).view(2, self._world_size, numbers)
        self._meetings = 0
        # The system takes this lock back when the process ends, however it ends.
        fcntl.lockf(handle, fcntl.LOCK_EX, 1, self._rank)

    @staticmethod
    def size(world_size: int, numbers: int) -> int:
        """Bytes for that many processes and float32 numbers."""
        return world_size * (8 * _LINE + 2 * 8 * _TOTALS + 2 * 4 * numbers)

    def sum_(self, tensors: Sequence[Tensor], totals: Tensor) -> None:
        """Replaces each of the float32 `tensors` by its sum over all processes, and `totals`, at most 16 numbers, too.

        tensors: dense, of the same shapes and layouts on every process, no more numbers in all than were asked for.
        Raises RuntimeError where another process has ended.
        """
        turn = self._meetings % 2
        slots = [_like(slot, tensors) for slot in self._halves[turn]]
        rows = self._totals[turn, :, : len(totals)]
        torch._foreach_copy_(slots[self._rank], list(tensors))
        rows[self._rank] = totals
        self._meet()
        totals.copy_(rows.sum(0))
        for place, tensor in enumerate(tensors):
            torch.add(slots[0][place], slots[1][place], out=tensor)
            for slot in slots[2:]:
                tensor += slot[place]

    def _meet(self) -> None:
        """Returns once all processes have come here as often as this one."""
        self._meetings += 1
        self._marks[self._rank] = self._meetings
        began, next_look = time.monotonic(), _SECONDS_BETWEEN_LOOKS
        while self._marks.min() < self._meetings:
            waited = time.monotonic() - began
            if waited < _SECONDS_AWAKE:
                os.sched_yield()
                continue
            time.sleep(1e-4)
            if waited > next_look:
                next_look += _SECONDS_BETWEEN_LOOKS
                self._look_for_the_dead(waited)

    def _look_for_the_dead(self, waited: float) -> None:
        for rank in np.flatnonzero(self._marks < self._meetings).tolist():
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
            except OSError:
                if waited > _LONGEST_WAIT:
                    raise RuntimeError(f"rank {rank} has not come to the sum for {waited:.0f} s") from None
            else:
                raise RuntimeError(f"rank {rank} has ended; its own last words say why")


def _like(slot: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Parts of `slot`, one after the other, in the shapes and layouts of `tensors`."""
    starts = [0, *itertools.accumulate(tensor.numel() for tensor in tensors)]
    begin = slot.storage_offset()
    return [
        slot.as_strided(tensor.shape, tensor.stride(), begin + start)
        for tensor, start in zip(tensors, starts, strict=False)
    ]


def open_host_sum(ranks: Ranks, numbers: int) -> HostSum | None:
    """Memory for sums of `numbers` float32 numbers; None on all processes where they share none, or too much.

    Nothing is left behind when processes are killed: the file has no name any more once all have opened it.
    """
    size = HostSum.size(ranks.world_size, numbers)
    token = torch.tensor([secrets.randbits(62)])
    dist.broadcast(token, 0)
    path = SHARED_FOLDER / f"{_PREFIX}{int(token):x}"
    try:
        if ranks.is_main and size <= _LARGEST_BYTES and platform.machine() in _ORDERED:
            _reserve(path, size)
        ranks.barrier()
        # A process on another machine, or with a /dev/shm of its own, does not find the file.
        handle = _open(path, os.O_RDWR)
        # Short where the memory was not to be had, as it is promised to nobody.
        whole = handle is not None and os.fstat(handle).st_size == size
        together = not ranks.any(not whole)
    finally:
        if ranks.is_main:
            path.unlink(missing_ok=True)
    if handle is None:
        return None
    if not together:
        os.close(handle)
        return None
    shared = HostSum(handle, ranks, numbers)
    ranks.barrier()  # all hold their locks
    return shared


def _open(path: Path, flags: int) -> int | None:
    try:
        return os.open(path, flags, 0o600)
    except OSError:
        return None


def _reserve(path: Path, size: int) -> None:
    """Makes a file whose memory is there: one that is only promised would end the process when it is written."""
    handle = _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    if handle is None:
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
