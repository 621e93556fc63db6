"""The key-value store of a job, which its processes reach before and beside torch's process group."""

import datetime
import socket
import sys
import time

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore, Store

from data_shards.io.errors import InputError
from trainer.peers.launcher import Address, Place

__all__ = ["STORE_ERRORS", "PrefixStore", "Store", "open_store"]

# What torch raises where the store's connection is lost or its answer late.
STORE_ERRORS = (dist.DistError, RuntimeError, OSError)


_SECONDS_BETWEEN_TRIES, _SECONDS_UNTIL_NOTICE = 0.2, 10.0
# For somebody who listens to say that it is a store.
_HANDSHAKE_SECONDS = 30.0


def open_store(place: Place, address: Address, seconds: float) -> Store:
    """The store of a job: torchrun's, or one of rank 0. Raises InputError where none is reached in time."""
    listens = place.rank == 0 and not address.of_launcher
    if not listens:
        _await_listener(place, address, seconds)
    try:
        store = TCPStore(
            address.host,
            address.port,
            place.world_size,
            is_master=listens,
            timeout=datetime.timedelta(seconds=_HANDSHAKE_SECONDS),
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
            f"not rank 0 but another program answers at {address} ({reason}); choose a free port",
            parameter="MASTER_PORT",
        ) from error
    return PrefixStore(f"attempt {address.attempt}", store)


def _await_listener(place: Place, address: Address, seconds: float) -> None:
    """Returns once somebody listens at the address; torch's own client prints pages where nobody comes."""
    start, told = time.monotonic(), False
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=_HANDSHAKE_SECONDS).close()
            return
        except OSError as error:
            waited = time.monotonic() - start
            if waited > seconds:
                raise InputError(
                    f"nobody answers at {address} for {seconds:.0f} s ({error.strerror or error}); see the output of "
                    "rank 0, or choose another address",
                    parameter="MASTER_ADDR",
                ) from error
        if waited > _SECONDS_UNTIL_NOTICE and not told:
            told = True
            print(f"rank {place.rank} of {place.world_size} waits for rank 0 at {address}", file=sys.stderr, flush=True)
        time.sleep(_SECONDS_BETWEEN_TRIES)
