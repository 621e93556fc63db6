"""Waits for images that a stop ends: all processes leave them at the same batch, whichever of them was asked to stop.

A process that waits for a server cannot take part in an update, and the others cannot leave the sums of one. So with
remote shards they tell each other before each update that they have their images, or that one leaves. In a pass over
images, such as those that end a stage, they do so between batches in any case.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from data_shards.stream.stream import Batch
from trainer.preemption import Interrupted, StopRequest
from trainer.process_group import Ranks

# On a GPU the processes cannot agree without waiting for it, so in a pass they do it once in so many batches.
_BATCHES_BETWEEN_CHECKS = {"cpu": 1, "cuda": 16}


class Batches(Iterable[Batch], Protocol):
    """A `ShardStream` or a `ResidentStream`."""

    while_waiting: Callable[[], None] | None

    @property
    def is_remote(self) -> bool:
        """Whether the next batch may be waited for until a server answers."""


class _Left(Exception):
    """This process has left its wait."""


class Waits:
    """One process's waits for images while it trains. All processes of the job wait for the same batches in turn."""

    def __init__(self, stop_request: StopRequest, ranks: Ranks) -> None:
        self._stop_request, self._ranks = stop_request, ranks
        if ranks.rendezvous is not None:
            ranks.rendezvous.watch.is_stopping = lambda: stop_request.is_noticed

    def for_updates(self, stream: Batches) -> Iterator[Batch]:
        """The batches of the rest of an epoch. Raises Interrupted, on all, where one is to stop while it waits."""
        alone = self._ranks.world_size == 1
        stream.while_waiting = self._leave_update if alone or stream.is_remote else None
        batches = iter(stream)
        while True:
            if alone and self._stop_request.is_noticed:
                raise Interrupted
            together = stream.is_remote and not alone
            batch, left = self._next(batches)
            if (together and self._ranks.any(left)) or left:
                raise Interrupted
            if batch is None:
                return
            yield batch

    def in_pass(self, stream: Batches) -> Iterator[Batch]:
        """The batches of a pass over a split. Raises Interrupted, on all processes, some seconds after a request."""
        every = 1 if stream.is_remote else _BATCHES_BETWEEN_CHECKS[self._ranks.device.type]
        stream.while_waiting = self._leave_pass if every == 1 or self._ranks.world_size == 1 else None
        batches, number = iter(stream), 0
        while True:
            batch, left = self._next(batches)
            number += 1
            if batch is None and not left:
                return
            if (number % every == 0 and self._ranks.any(left or self._stop_request.is_late())) or left:
                raise Interrupted
            if batch is not None:
                yield batch

    def _next(self, batches: Iterator[Batch]) -> tuple[Batch | None, bool]:
        try:
            return next(batches, None), False
        except _Left:
            return None, True

    def _leave_update(self) -> None:
        if self._stop_request.reason() or self._another_stops():
            raise _Left

    def _leave_pass(self) -> None:
        if self._stop_request.is_late() or self._another_stops():
            raise _Left

    def _another_stops(self) -> bool:
        """Whether another process is asked to stop, which may be in a sum with the others."""
        return self._ranks.rendezvous is not None and self._ranks.rendezvous.watch.another_stops
