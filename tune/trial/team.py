"""The processes of one trial: Ray's trial actor is rank 0; further ranks are actors in the same placement group.

They, what they have imported and their process group are kept from trial to trial. A team in which something failed is
not used again: its rank 0 ends with an error, Ray starts another one, and the further ranks end with the one that
started them.
"""

import datetime
import os
import socket
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import psutil
import ray
import ray.util
import torch.distributed as dist
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tune.trial.worker import Task, carry_out


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a rank runs."""

    node: str
    address: str
    """IP address of the machine."""
    gpus: tuple[str, ...]
    """Of the machine, that this rank may use."""


def seat() -> Seat:
    """That of this process."""
    context = ray.get_runtime_context()
    gpus = tuple(str(gpu) for gpu in context.get_accelerator_ids().get("GPU", []))
    return Seat(node=context.get_node_id(), address=ray.util.get_node_ip_address(), gpus=gpus)


class Peer:
    """A rank above 0."""

    def seat(self) -> Seat:
        """Where it runs."""
        return seat()

    def join(self, rank: int, seats: list[Seat], port: int) -> None:
        """Joins the process group. port: at which rank 0 listens."""
        join_group(rank, seats, port)

    def carry_out(self, task: Task) -> None:
        """Its part of a trial."""
        try:
            carry_out(task, None)
        except SystemExit as end:
            if end.code:  # else the trial was stopped, and this process serves the next one
                raise


def join_group(rank: int, seats: list[Seat], port: int) -> None:
    """Joins the process group of all seats, by rank; every rank calls it."""
    local = [place for place, one in enumerate(seats) if one.node == seats[rank].node]
    on_gpus = bool(seats[rank].gpus)
    if on_gpus:
        # NCCL connects the GPUs of a machine only where each process sees all of them.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for place in local for gpu in seats[place].gpus)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(len(seats)),
        LOCAL_RANK=str(local.index(rank)),
        LOCAL_WORLD_SIZE=str(len(local)),
        MASTER_ADDR=seats[0].address,
        MASTER_PORT=str(port),
    )
    if interface := _interface(seats[rank].address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    dist.init_process_group(
        backend="nccl" if on_gpus else "gloo",
        init_method=f"tcp://{seats[0].address}:{port}",
        rank=rank,
        world_size=len(seats),
        timeout=datetime.timedelta(minutes=30),
    )


def _interface(address: str) -> str | None:
    """The network interface with that address: gloo resolves the host's name, which need not be an address of it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            found[one.address].append(name)
    return found[address][0] if found[address] else None


_peers: list[Any] | None = None  # of this process, from its first trial of several processes on


def peers(workers: int, cpus: int, gpus: float) -> list[Any]:
    """The actors of the ranks above 0, in order; empty for a trial of one process.

    workers: processes of the trial; cpus, gpus: of each. Called by rank 0, which is the first bundle of the placement
    group.
    """
    global _peers
    if _peers is None and workers > 1:
        group = ray.util.get_current_placement_group()
        assert group is not None  # Tune makes one for each trial
        kind: Any = ray.remote(Peer)
        made: list[Any] = [
            kind.options(
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=place
                ),
            ).remote()
            for place in range(1, workers)
        ]
        seats = [seat(), *ray.get([peer.seat.remote() for peer in made])]
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        joined = [peer.join.remote(rank, seats, port) for rank, peer in enumerate(made, start=1)]
        join_group(0, seats, port)
        ray.get(joined)
        _peers = made
    return _peers or []
