"""Facts that must be equal on all processes, and a line for each that is not."""

import sys
from collections.abc import Mapping, Sequence

from data_shards.io.errors import InputError

_NAMED_HOSTS = 4


def ranks_and_hosts(hosts: Mapping[int, str]) -> str:
    """Some ranks with their machines: "rank 1 on b" or "ranks 0-3, 6 on a, b"."""
    chosen = sorted(hosts)
    machines = list(dict.fromkeys(hosts[rank] for rank in chosen))
    left_out = len(machines) - _NAMED_HOSTS
    named = ", ".join(machines[:_NAMED_HOSTS]) + (f" and {left_out} more machines" if left_out > 0 else "")
    return f"rank{'s' if len(chosen) > 1 else ''} {_runs(chosen)} on {named}"


def differences(facts: Sequence[Mapping[str, str]], hosts: Sequence[str]) -> list[str]:
    """A line for each fact that is not the same on all ranks: its name, and each value with its ranks and machines.

    facts, hosts: of each rank in order.
    """
    found = []
    for name in dict.fromkeys(name for own in facts for name in own):
        ranks_of: dict[str, list[int]] = {}
        for rank, own in enumerate(facts):
            ranks_of.setdefault(own.get(name, "not known"), []).append(rank)
        if len(ranks_of) > 1:
            values = "; ".join(
                f"{value} on {ranks_and_hosts({rank: hosts[rank] for rank in ranks})}"
                for value, ranks in ranks_of.items()
            )
            found.append(f"{name} differs between processes: {values}")
    return found


def refuse_differences(facts: Sequence[Mapping[str, str]], hosts: Sequence[str], remedy: str) -> None:
    """Raises InputError where a fact is not the same on all ranks, after a line for each such fact but the last.

    facts, hosts: of each rank in order. remedy: what would be right.
    """
    lines = differences(facts, hosts)
    for line in lines[:-1]:
        print(f"error: {line}", file=sys.stderr, flush=True)
    if lines:
        raise InputError(f"{lines[-1]}; {remedy}")


def _runs(ranks: Sequence[int]) -> str:
    """Sorted numbers, with those that follow each other drawn together: "0-3, 6"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and runs[-1][-1] == rank - 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
