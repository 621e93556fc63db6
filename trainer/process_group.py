"""The processes of one job: their ranks, and the sums and comparisons that they make together.

Ranks come from the environment of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or of srun
(SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID); without either the job is one process. Processes communicate through gloo
on CPUs and through NCCL on GPUs.
"""

import contextlib
import datetime
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from data_shards.io.errors import InputError
from data_shards.io.partition import partition
from trainer.device import resolved_device

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One process's view of the group. rank: 0 to world_size - 1; local_rank: the same within its machine."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the one process that prints and writes."""
        return self.rank == 0

    def partition(self, count: int) -> range:
        """This process's consecutive part of `count` items; the parts of all ranks in order are all items."""
        return partition(count, self.rank, self.world_size)

    def sum_(self, values: torch.Tensor) -> torch.Tensor:
        """Replaces `values` by their sum over all processes and returns them."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """True on every process if it is true on one."""
        return bool(self.sum_(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def equal(self, number: int) -> bool:
        """True if `number`, below 2^62, is the same on every process."""
        extremes = torch.tensor([number, -number], dtype=torch.int64, device=self.device)
        if self.world_size > 1:
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        return bool(extremes[0] == -extremes[1])

    def barrier(self) -> None:
        """Waits until every process has called it."""
        self.sum_(torch.zeros(1, device=self.device))

    def agree(self, action: Callable[[], T]) -> T:
        """Runs `action` on every process and returns its result; if it fails on one, all end.

        Where `action` raises InputError or OSError, that process raises it, and the others SystemExit(2).
        """
        error: InputError | OSError | None = None
        result: T | None = None
        try:
            result = action()
        except (InputError, OSError) as caught:
            error = caught
        if self.any(error is not None):
            raise error if error is not None else SystemExit(2)
        return cast("T", result)


def single(device: str | torch.device = "cpu") -> Ranks:
    """A job of one process."""
    return Ranks(rank=0, world_size=1, local_rank=0, device=torch.device(device))


def _environment() -> tuple[int, int, int]:
    """Rank, world size and local rank from the launcher's variables."""
    for rank, world, local in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        # An interactive shell inside an allocation also carries SLURM_PROCID; only srun sets the step's id.
        if rank in os.environ and (rank == "RANK" or "SLURM_STEP_ID" in os.environ):
            return int(os.environ[rank]), int(os.environ.get(world, "1")), int(os.environ.get(local, "0"))
    return 0, 1, 0


@contextlib.contextmanager
def process_group(device: str = "cpu", *, timeout_seconds: float = 1800) -> Iterator[Ranks]:
    """Joins the group that the launcher started, and leaves it at the end of the block.

    An existing process group is used as it is. device: one of DEVICES; on CUDA a process uses the GPU of its local
    rank. timeout_seconds: how long a process waits for the others in one collective before it ends with an error.
    Raises InputError if CUDA is requested and absent, or if the group's address is missing or in use.
    """
    rank, world_size, local_rank = _environment()
    kind = resolved_device(device)
    if kind == "cuda":
        chosen = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(chosen)
    else:
        chosen = torch.device("cpu")
    ranks = Ranks(rank=rank, world_size=world_size, local_rank=local_rank, device=chosen)
    if world_size == 1 or dist.is_initialized():
        yield ranks
        return
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise InputError(
                f"not set, though {world_size} processes were started; start them with torchrun", parameter=name
            )
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(local_rank))
    if "GLOO_SOCKET_IFNAME" not in os.environ and os.environ["MASTER_ADDR"] in ("localhost", "127.0.0.1", "::1"):
        # gloo resolves the host's own name, which need not be an address of this machine.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        dist.init_process_group(
            backend="nccl" if kind == "cuda" else "gloo", timeout=datetime.timedelta(seconds=timeout_seconds)
        )
    except dist.DistNetworkError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(
            f"cannot connect at {address} ({error}); choose a free port", parameter="MASTER_PORT"
        ) from error
    try:
        yield ranks
    except InputError:
        raise  # its message is one line
    except BaseException as error:
        # The other processes fail in a collective because this one ends; the log must show which rank was first.
        print(f"rank {rank} on {socket.gethostname()} ends: {type(error).__name__}", file=sys.stderr, flush=True)
        raise
    else:
        dist.destroy_process_group()
    finally:
        _wait_for_idle_gloo()


def _wait_for_idle_gloo(poll_seconds: float = 0.01, timeout_seconds: float = 5.0) -> None:
    """Returns once all threads of gloo are asleep, or after the timeout.

    The threads of a group outlive it where something keeps a reference, as DeepSpeed does. A thread that releases the
    last collective's tensor while the interpreter shuts down aborts the process (pytorch issue 190489). A sleeping
    thread has released it, as each sleep here lets other threads run.
    """
    tasks, idle = Path("/proc/self/task"), 0
    deadline = time.monotonic() + timeout_seconds
    while tasks.exists() and idle < 2 and time.monotonic() < deadline:
        time.sleep(poll_seconds)
        idle = 0 if any(_is_busy_gloo(task) for task in tasks.iterdir()) else idle + 1


def _is_busy_gloo(task: Path) -> bool:
    """Whether a thread of this process belongs to gloo and is not asleep. task: its folder in /proc."""
    try:
        # "ID (NAME) STATE ..."; the system cuts names after 15 characters.
        before, _, after = (task / "stat").read_text().rpartition(")")
    except OSError:
        return False  # it has ended
    return before.endswith("(pt_gloo_runloop") and after.split()[0] != "S"
