"""Where networks run: on CUDA where there is a GPU for every process, unless a device is asked for."""

import os
from typing import Literal

from data_shards.io.errors import InputError

DEVICES = ("auto", "cpu", "cuda")
"""What an option `--device` may say."""
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")
"""Values of that variable with which cuBLAS adds in a fixed order."""


def resolved_device(device: str, *, processes: int | None = None) -> Literal["cpu", "cuda"]:
    """The kind of device behind a name of DEVICES, on this machine.

    processes: of the job on this machine; by default what torchrun says, or 1. Raises InputError for another name, and
    where CUDA is asked for and has no GPU for each process.
    """
    # Imported here: torch takes seconds, and the commands that know DEVICES show their help without it.
    import torch

    if device not in DEVICES:
        raise InputError(f"{device!r} is unknown; use {', '.join(DEVICES[:-1])} or {DEVICES[-1]}", parameter="device")
    if device == "cpu":
        return "cpu"
    if device == "auto" and torch.distributed.is_available() and torch.distributed.is_initialized():
        # Whoever made the group knows where its processes are; NCCL works on GPUs only, gloo is for CPUs.
        return _on_cuda() if "nccl" in torch.distributed.get_backend() else "cpu"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if processes is None:
        processes = local_processes()
    if device == "cuda" and gpus == 0:
        raise InputError("cuda is requested, but this machine has no CUDA device; use cpu", parameter="device")
    if device == "cuda" and gpus < processes:
        raise InputError(
            f"{processes} processes on this machine have {gpus} CUDA devices; start one process a device, or use cpu",
            parameter="device",
        )
    return _on_cuda() if gpus >= processes and gpus > 0 else "cpu"


def _on_cuda() -> Literal["cuda"]:
    """ "cuda", for a process that is ready for it.

    torch reads the variable once, at the first product of matrices of the process, which may come before a training
    that asks for deterministic kernels. The workspace is as large as torch's own for a Hopper GPU.
    """
    os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACES[0])
    return "cuda"


def planned_device(device: str) -> Literal["cpu", "cuda"]:
    """The kind of device that an estimate is for: what is asked for, also on a machine that has none, or this one's."""
    if device == "auto":
        return resolved_device(device, processes=1)
    return "cuda" if device == "cuda" else "cpu"


def local_processes() -> int:
    """Processes of the job on this machine, as torchrun says; 1 without it."""
    word = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(word) if word.isdecimal() else 1
