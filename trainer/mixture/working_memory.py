"""How much is computed at a time: what stays in the caches of a CPU, or a part of the memory of a GPU.

On a GPU each operation costs a launch, however small it is, so that intermediates are as large as memory allows.
"""

from functools import cache

import torch

# Of a GPU's memory, for the numbers of one intermediate in float32; several of them are alive at a time.
_SHARE = 1 / 24


def numbers_at_a_time(on_cpu: int, device: torch.device) -> int:
    """Numbers that an intermediate tensor on `device` may have.

    on_cpu: what suits a CPU's caches. A GPU's share is of all of its memory, used or not, so that the same fit has the
    same chunks.
    """
    return max(on_cpu, numbers_of_share(_memory(device))) if device.type == "cuda" else on_cpu


def numbers_of_share(memory: int) -> int:
    """Numbers of 4 bytes in the share of a memory of so many bytes."""
    return int(memory * _SHARE) // 4


@cache
def _memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
