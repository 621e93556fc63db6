"""The key-value store of a job, which its processes reach before and beside torch's process group."""

import datetime

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore, Store

from data_shards.io.errors import InputError
from trainer.peers.launcher import Address, Place

__all__ = ["STORE_ERRORS", "PrefixStore", "Store", "open_store"]

# What torch raises where the store's connection is lost or its answer late.
STORE_ERRORS = (dist.DistError, RuntimeError, OSError)


def open_store(place: Place, address: Address, seconds: float) -> Store:
    """The store of a job: torchrun's, or one of rank 0. Raises InputError where none is reached in time."""
    listens = place.rank == 0 and not address.of_launcher
    try:
        store = TCPStore(
            address.host,
            address.port,
            place.world_size,
            is_master=listens,
            timeout=datetime.timedelta(seconds=seconds),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except STORE_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        if listens:
            raise InputError(
                f"cannot listen at {address} ({reason}); choose a free port", parameter="MASTER_PORT"
            ) from error
        raise InputError(
            f"nobody answers at {address} ({reason}); see the output of rank 0, or choose another address",
            parameter="MASTER_ADDR",
        ) from error
    return PrefixStore(f"attempt {address.attempt}", store)
