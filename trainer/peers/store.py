"""The key-value store of a job, which its processes reach before and beside torch's process group."""

import contextlib
import datetime
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore, Store

from data_shards.io.errors import InputError
from trainer.peers.launcher import MasterAddress, PlaceInJob

__all__ = ["STORE_ERRORS", "PrefixStore", "Store", "open_store"]

# What torch raises where the store's connection is lost or its answer late.
STORE_ERRORS = (dist.DistError, RuntimeError, OSError)

_SECONDS_BETWEEN_TRIES, _SECONDS_UNTIL_NOTICE = 0.2, 10.0
# For one try; and for all where the machine itself does not answer: one on which rank 0 has not begun to listen does.
_CONNECT_SECONDS, _UNREACHABLE_SECONDS = 10.0, 60.0
# For somebody who listens to say that it is a store.
_HANDSHAKE_SECONDS, _SPARE_SECONDS = 30.0, 5.0
_REMEDY = "use the name or IP address of the machine of rank 0"


def open_store(place: PlaceInJob, address: MasterAddress, seconds: float) -> Store:
    """The store of a job: torchrun's, or one of rank 0. Raises InputError where none is reached in time."""
    listens = place.rank == 0 and not address.of_launcher
    elsewhere = listens and not _is_of_this_machine(address)
    if elsewhere:  # or it is one that a network translates, as of a container
        print(
            f"MASTER_ADDR {address.host} is no address of {socket.gethostname()}, on which rank 0 runs; it is tried "
            f"for {_HANDSHAKE_SECONDS:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    if not listens:
        _await_listener(place, address, seconds)
    try:
        with _without_torchs_own_pages():
            store = _opened(place, address, listens=listens)
    except STORE_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        if elsewhere:
            raise InputError(
                f"{address.host} is no address of {socket.gethostname()}, on which rank 0 runs, and does not lead to "
                f"it ({reason}); {_REMEDY}",
                parameter="MASTER_ADDR",
            ) from error
        if listens:
            raise InputError(
                f"cannot listen at {address} ({reason}); choose a free port", parameter="MASTER_PORT"
            ) from error
        raise InputError(
            f"not rank 0 but another program answers at {address} ({reason}); choose a free port",
            parameter="MASTER_PORT",
        ) from error
    return PrefixStore(f"attempt {address.attempt}", store)


def _opened(place: PlaceInJob, address: MasterAddress, *, listens: bool) -> Store:
    """Torch's own store. Raises one of STORE_ERRORS where that fails, or does not answer in time.

    A thread opens it, for torch waits without end for a program that takes a connection and says nothing.
    """
    found: list[Store | Exception] = []

    def open_it() -> None:
        try:
            found.append(
                TCPStore(
                    address.host,
                    address.port,
                    place.world_size,
                    is_master=listens,
                    timeout=datetime.timedelta(seconds=_HANDSHAKE_SECONDS),
                    wait_for_workers=False,
                    multi_tenant=True,
                )
            )
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=open_it, name="store", daemon=True)
    thread.start()
    thread.join(_HANDSHAKE_SECONDS + _SPARE_SECONDS)
    if not found:
        raise TimeoutError(f"no answer for {_HANDSHAKE_SECONDS + _SPARE_SECONDS:.0f} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


@contextlib.contextmanager
def _without_torchs_own_pages() -> Iterator[None]:
    """A block in which nothing comes on stderr: torch prints a page of C++ where its client fails, and raises too."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _is_of_this_machine(address: MasterAddress) -> bool:
    """Whether a program of this machine can listen at the address."""
    for family, kind, protocol, _, where in socket.getaddrinfo(address.host, 0, type=socket.SOCK_STREAM):
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(where)
            return True
    return False


def _await_listener(place: PlaceInJob, address: MasterAddress, seconds: float) -> None:
    """Returns once somebody listens at the address; torch's own client prints pages where nobody comes."""
    start, told, answered = time.monotonic(), False, False
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS).close()
            return
        except OSError as error:
            answered |= isinstance(error, ConnectionError)  # refused: the machine is there, rank 0 is not yet
            most = seconds if answered else min(seconds, _UNREACHABLE_SECONDS)
            waited = time.monotonic() - start
            if waited > most:
                who = "nobody answers" if answered else "no machine answers"
                raise InputError(
                    f"{who} at {address} for {most:.0f} s ({error.strerror or error}); see the output of rank 0, or "
                    f"{_REMEDY}",
                    parameter="MASTER_ADDR",
                ) from error
        if waited >= _SECONDS_UNTIL_NOTICE and not told:
            told = True
            print(
                f"rank {place.rank} of {place.world_size} waits for rank 0 at {address}, at most {most:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(_SECONDS_BETWEEN_TRIES)
