"""The processes of one job: their ranks, and the sums and comparisons that they make together.

Ranks come from the environment of torchrun, srun or mpirun (trainer/peers/launcher.py); without one the job is one
process. Processes compute together through gloo on CPUs and through NCCL on GPUs, and tell each other of failures
through the store of the job (trainer/peers/rendezvous.py).
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from data_shards.io.errors import InputError
from data_shards.io.partition import partition
from trainer.device import resolved_device
from trainer.peers.code_version import versions
from trainer.peers.compare import refuse_differences
from trainer.peers.failure import failure_of
from trainer.peers.gloo_threads import wait_for_idle_gloo
from trainer.peers.launcher import PlaceInJob, address_of_job, place_in_job
from trainer.peers.rendezvous import Rendezvous
from trainer.peers.store import open_store

T = TypeVar("T")
# How long a process that fails before it joins the group waits for the others, to tell them.
_EARLY_SECONDS = 60.0


class PeerEnded(RuntimeError):
    """Another process has ended, or did not reach a sum in time."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One process's view of the group. rank: 0 to world_size - 1; local_rank: the same within its machine."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    rendezvous: Rendezvous | None = field(default=None, repr=False, compare=False)
    """Where the processes hear of each other; None in a job of one process."""

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

        Where `action` raises InputError or OSError, that process raises it; the others print which rank and machine it
        was, and why, and raise SystemExit.
        """
        if self.rendezvous is None:
            return action()
        error: InputError | OSError | None = None
        result: T | None = None
        try:
            result = action()
        except (InputError, OSError) as caught:
            error = caught
        self.rendezvous.exchange({}, failure_of(error, self.rank) if error is not None else None)
        if error is not None:
            raise error
        return cast("T", result)

    def refuse_differences(self, facts: Mapping[str, str], remedy: str) -> None:
        """Raises InputError where one of the facts, by name, is not the same on every process.

        Each of them takes a line; all but the last are printed here. remedy: what would be right.
        """
        if self.rendezvous is not None:
            refuse_differences(self.rendezvous.exchange(facts), self.rendezvous.hosts, remedy)


def single(device: str | torch.device = "cpu") -> Ranks:
    """A job of one process."""
    return Ranks(rank=0, world_size=1, local_rank=0, device=torch.device(device))


_rendezvous: Rendezvous | None = None  # of this process, while it is in a group
_entries = 0  # groups that this process has joined or tried to join


@contextlib.contextmanager
def process_group(
    device: str = "cpu",
    *,
    options: Mapping[str, Any] | None = None,
    timeout_seconds: float = 1800,
    start_seconds: float = 300,
) -> Iterator[Ranks]:
    """Joins the group that the launcher started, and leaves it at the end of the block.

    An existing process group is used as it is. Where another process fails or is lost, at the start or in the block,
    this one prints that in one line and ends, with SystemExit or, from within a collective, at once.

    device: one of DEVICES; on CUDA a process uses the GPU of its local rank. options: what the processes were asked
    to do, which must be equal on all. timeout_seconds: how long a process waits for the others in one collective before
    it ends with an error. start_seconds: how long it waits for them to start.

    Raises InputError if CUDA is requested and absent, if the launcher's variables do not fit together, if the group's
    address is missing or in use, if not all processes start, or if they differ in code, versions or options.
    """
    if _rendezvous is not None:
        yield _ranks(_place(), _device(device, _place()), _rendezvous)
        return
    place = _place()
    if place.world_size == 1:
        yield _ranks(place, _device(device, place), None)
        return
    with _joined(place, device, options or {}, start_seconds) as ranks:
        if dist.is_initialized():
            yield ranks
        else:
            with _initialised(ranks, timeout_seconds):
                yield ranks


def _place() -> PlaceInJob:
    place = place_in_job()
    if not dist.is_initialized():
        return place
    return replace(place, rank=dist.get_rank(), world_size=dist.get_world_size())


def _device(name: str, place: PlaceInJob) -> torch.device:
    if resolved_device(name) == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if place.world_size > 1 and place.local_rank is None and count > 1:
        raise InputError(
            f"not set, so that nothing says which of the {count} GPUs is whose; start the processes with torchrun",
            parameter="LOCAL_RANK",
        )
    chosen = torch.device("cuda", (place.local_rank or 0) % count)
    torch.cuda.set_device(chosen)
    return chosen


def _ranks(place: PlaceInJob, device: torch.device, rendezvous: Rendezvous | None) -> Ranks:
    return Ranks(
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank or 0,
        device=device,
        rendezvous=rendezvous,
    )


def _join(place: PlaceInJob, start_seconds: float) -> Rendezvous:
    """Opens the store of the job."""
    global _entries
    _entries += 1
    if dist.is_initialized():
        store, listens = dist.distributed_c10d._get_default_store(), False
    else:
        address = address_of_job(place)
        store, listens = open_store(place, address, start_seconds), place.rank == 0 and not address.of_launcher
    return Rendezvous(store, place, prefix=f"job {_entries}", listens=listens)


@contextlib.contextmanager
def _joined(place: PlaceInJob, device: str, options: Mapping[str, Any], start_seconds: float) -> Iterator[Ranks]:
    """The block in which all processes of the job know of each other."""
    global _rendezvous
    rendezvous = _join(place, start_seconds)
    try:
        ranks, early = None, None
        try:
            ranks = _ranks(place, _device(device, place), rendezvous)
        except InputError as error:
            early = error
        asked = {name: str(value) for name, value in options.items() if not callable(value)}
        facts = versions() | asked | {"device": ranks.device.type if ranks else ""}
        found = rendezvous.arrive(facts, failure_of(early, place.rank) if early else None, start_seconds)
        if early is not None:
            raise early
        refuse_differences(
            found, rendezvous.hosts, "start all processes from the same installation with the same options"
        )
        _rendezvous = rendezvous
        yield cast("Ranks", ranks)
    except Exception as error:
        if _is_of_communication(error):
            lost = rendezvous.watch.wait_for_failure()
            if lost is not None:
                raise SystemExit(lost.code) from error
        rendezvous.fail(failure_of(error, place.rank))
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        ends_well = isinstance(error, SystemExit) and not error.code
        if rendezvous.watch.failure is None and not rendezvous.watch.ending and not ends_well:
            rendezvous.fail(failure_of(error, place.rank))
        raise
    finally:
        _rendezvous = None
        rendezvous.leave()
        wait_for_idle_gloo()


@contextlib.contextmanager
def _initialised(ranks: Ranks, timeout_seconds: float) -> Iterator[None]:
    """The block in which torch's process group exists."""
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world_size), LOCAL_RANK=str(ranks.local_rank))
    if "GLOO_SOCKET_IFNAME" not in os.environ and os.environ["MASTER_ADDR"] in ("localhost", "127.0.0.1", "::1"):
        # gloo resolves the host's own name, which need not be an address of this machine.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        backend="nccl" if ranks.device.type == "cuda" else "gloo",
        store=cast("Rendezvous", ranks.rendezvous).store_of_group(),
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=datetime.timedelta(seconds=timeout_seconds),
    )
    yield
    dist.destroy_process_group()


def _is_of_communication(error: Exception) -> bool:
    """Whether a collective failed, as it does on every process once one has ended."""
    if isinstance(error, dist.DistError | PeerEnded):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "Connection closed"))


def report_early(error: Exception) -> None:
    """Reports to the other processes why this one does not join them, unless it has.

    Raises SystemExit where all fail for the same reason and another one prints it.
    """
    if _entries:
        return
    try:
        place = place_in_job()
        if place.world_size == 1:
            return
        rendezvous = _join(place, _EARLY_SECONDS)
    except InputError:
        return  # no other process can be reached
    try:
        with contextlib.suppress(InputError):
            rendezvous.arrive({}, failure_of(error, place.rank), _EARLY_SECONDS)
    finally:
        rendezvous.leave()
