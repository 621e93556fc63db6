"""Kernels of GPUs that give the same bits each time they are given the same numbers."""

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """A block in which torch uses no others, and raises RuntimeError where it has none; changes nothing if not wanted.

    Enough for the same bits on one machine with the same number of GPUs: the sum over processes has a fixed layout
    (flat_sum.py), and NCCL chooses its algorithm by size and machine alone.
    """
    if not wanted:
        yield
        return
    # Read where cuBLAS starts: a workspace of its own for each stream.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Filling costs time, and nothing here reads memory that nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
