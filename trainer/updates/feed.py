"""Batches on their way to the device: on a GPU through pinned memory and a stream of their own, so that nobody waits.

The host asks for an update long before the GPU is done with the one before. So the copies of a batch run beside the
computation of the batch before it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Feed:
    """Sends tensors of the host to `device`."""

    def __init__(self, device: torch.device, memory_format: torch.memory_format) -> None:
        self._device, self._memory_format = device, memory_format
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, images: Tensor, numbers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Images, (b, C, H, W) uint8, and float32 numbers, all of them by one copy.

        On a CPU images come back in the layout of the networks; on a GPU as they lie, for an update that is recorded
        to change that. Images that are on the device stay there. What comes back may be used at once on the current
        stream; the host's memory may be given away.
        """
        if self._stream is None:
            return images.to(self._device, memory_format=self._memory_format), list(numbers)
        together = torch.cat([values.flatten() for values in numbers])
        with torch.cuda.stream(self._stream):
            # As they lie: a copy that changes the layout would go through memory that is not pinned.
            sent = [
                values if values.is_cuda else values.pin_memory().to(self._device, non_blocking=True)
                for values in (together, images)
            ]
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for values in sent:
            values.record_stream(current)
        parts = sent[0].split([values.numel() for values in numbers])
        return sent[1], [part.view(values.shape) for part, values in zip(parts, numbers, strict=True)]
