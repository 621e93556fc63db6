"""Which errors are a configuration's own fault: it would fail again, so it is not tried again."""

import torch

from data_shards.io.errors import InputError


def own_fault(error: BaseException) -> str:
    """One line that says why the configuration cannot be trained; empty where the machine is at fault."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"out of memory: {_first_line(error)}"
    # torch has no class of its own for a failed allocation on a CPU.
    if isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error)):
        return f"out of memory: {_first_line(error)}"
    return ""


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
