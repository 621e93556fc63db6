"""All gradients of a replica and the totals of its batch in one buffer, summed over processes by one all-reduce.

Where a gradient lies in the buffer follows from the order of the parameters alone. So its sum is added up in the same
order in each update, and in a resumed run; DistributedDataParallel rearranges its buffers after the first update.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.process_group import Ranks

_TOTALS = 8
"""Places behind the gradients, two for each process, for totals in float64: a number and what rounding left of it."""


class FlatSum:
    """Sums on one device. parameters: dense, float32, the same on every process in the same order."""

    def __init__(self, ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
        self._ranks, self._parameters = ranks, parameters
        numbers = sum(parameter.numel() for parameter in parameters)
        self._buffer = torch.zeros(numbers + ranks.world_size * 2 * _TOTALS, device=ranks.device)
        self._gradients = self._buffer[:numbers]
        self._totals = self._buffer[numbers:].view(ranks.world_size, 2, _TOTALS)
        self._places = places(self._buffer, parameters)

    def sum_(self, totals: Tensor) -> list[Tensor]:
        """Replaces the gradients of all parameters, and `totals`, by their sums over all processes.

        totals: at most 8 numbers, float64. Returns the gradients as one tensor, which is theirs.
        """
        own = [
            (place, parameter.grad)
            for place, parameter in zip(self._places, self._parameters, strict=True)
            if parameter.grad is not None
        ]
        if len(own) < len(self._places):
            self._gradients.zero_()
        torch._foreach_copy_([place for place, _ in own], [gradient for _, gradient in own])
        # The places of other processes are zero here, so their totals arrive as they are.
        self._totals.zero_()
        rounded = totals.float()
        self._totals[self._ranks.rank, :, : len(totals)] = torch.stack([rounded, (totals - rounded).float()])
        self._ranks.sum_(self._buffer)
        for parameter, place in zip(self._parameters, self._places, strict=True):
            parameter.grad = place
        totals.copy_(self._totals[..., : len(totals)].double().sum(1).sum(0))
        return [self._gradients]


def places(buffer: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Consecutive parts of a flat `buffer` in the shapes and layouts of `tensors`."""
    starts = [0, *itertools.accumulate(tensor.numel() for tensor in tensors)]
    offset = buffer.storage_offset()
    return [
        buffer.as_strided(tensor.shape, tensor.stride(), offset + start)
        for tensor, start in zip(tensors, starts, strict=False)
    ]
