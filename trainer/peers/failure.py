"""Why a process ends before the others: what they read and print."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from data_shards.io.errors import InputError, MachineFault, machine_fault, wrong_path
from data_shards.io.processes import this_process
from trainer.peers.compare import ranks_and_hosts


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a process ended before the others."""

    rank: int
    host: str
    reason: str
    """One line."""
    code: int
    """Exit code of the processes that end because of it: 2 where the input was wrong, else 1."""


def failure_of(error: BaseException, rank: int) -> Failure:
    """An exception of this process as the others read it."""
    error = machine_fault(error) or wrong_path(error) or error
    text = " ".join(str(error).split())
    is_input = isinstance(error, InputError)
    says_all = isinstance(error, InputError | MachineFault)
    reason = text if says_all else ": ".join(part for part in (type(error).__name__, text) if part)
    return Failure(rank=rank, host=this_process().host, reason=reason, code=2 if is_input else 1)


def print_failures(failures: Sequence[Failure]) -> None:
    """A line on stderr for each reason, which names ranks and machines."""
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(failure.reason, []).append(failure)
    for reason, of_reason in alike.items():
        hosts = {failure.rank: failure.host for failure in of_reason}
        print(f"error: {ranks_and_hosts(hosts)}: {reason}", file=sys.stderr, flush=True)
