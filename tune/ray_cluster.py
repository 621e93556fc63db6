"""The Ray cluster that trials run on: the one at an address, or one that is started on this machine."""

import signal
import socket
import threading

import ray

from data_shards.io.errors import InputError

_SECONDS_TO_ANSWER = 10.0
_REMEDY = "start one with `ray start --head`, or leave --address out to use this machine alone"


def require_cluster(address: str | None) -> None:
    """Raises InputError where `address` is neither "auto" nor HOST:PORT at which something answers.

    Before anything is written, and at once: Ray tries for minutes.
    """
    if address is None or address == "auto" or "://" in address or ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        what = f"{address!r} is no address of a Ray cluster; use HOST:PORT, such as 10.0.0.1:6379, or auto"
        raise InputError(what, parameter="address")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, UnicodeError) as error:  # a name of more than 63 letters is not encoded
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"no Ray cluster answers at {address} ({reason}); {_REMEDY}", parameter="address") from error


def start_ray(address: str | None) -> None:
    """Joins the cluster at `address`, or starts Ray here, unless this process has done so.

    A terminal, `timeout`, systemd or Slurm may signal all processes of a command. Ray's, which inherit what is blocked,
    would end before the trials have saved; SIGINT Ray blocks in them itself. Raises InputError where there is no
    cluster at `address` that this Ray can join.
    """
    if ray.is_initialized():
        return
    on_term = signal.getsignal(signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, () if address else {signal.SIGTERM, signal.SIGUSR2})
    try:
        # "local" keeps Ray from joining a cluster whose address an earlier one left behind on this machine.
        ray.init(address=address or "local", log_to_driver=False, include_dashboard=None if address else False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"no Ray cluster at {address} can be joined ({reason}); {_REMEDY}", parameter="address"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # Ray's own ends the process at once
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
