"""Kernels of GPUs that give the same bits each time they are given the same numbers."""

import contextlib
import os
from collections.abc import Iterator

import torch

from data_shards.io.errors import InputError
from trainer.device import CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACES


@contextlib.contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """A block in which torch uses no others, and raises RuntimeError where it has none; changes nothing if not wanted.

    Enough for the same bits on one machine with the same number of GPUs: the sum over processes has a fixed layout
    (flat_sum.py), and NCCL chooses its algorithm by size and machine alone. Raises InputError where the environment
    gives cuBLAS a workspace with which it has no fixed order.
    """
    if not wanted:
        yield
        return
    workspace = os.environ.get(CUBLAS_WORKSPACE)
    if workspace not in DETERMINISTIC_WORKSPACES:
        raise InputError(
            f"{CUBLAS_WORKSPACE} is {workspace!r}, with which products of matrices have no fixed order; "
            f"use {' or '.join(DETERMINISTIC_WORKSPACES)}, or leave it out",
            parameter="engine.deterministic",
        )
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
