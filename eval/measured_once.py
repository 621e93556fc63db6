"""One job measures a result, and all others read it: what stands in its place, and the lease on it.

A second command that asks for the same at the same moment ends in one line, rather than measure it too.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from data_shards.io.atomic import write_bytes
from data_shards.io.lease import Lease
from eval import protocol as protocols
from eval.results import AnyResult, measured_before
from trainer.process_group import Ranks
from trainer.run_folder.holding import held_by_main

T = TypeVar("T")


class Savable(Protocol):
    """What a file holds."""

    def save(self, path: Path) -> None:
        """Writes the file, at once or not at all."""


@dataclass(frozen=True, kw_only=True)
class ResultPlace(Generic[T]):
    """Where a result is stored."""

    path: Path
    """Its file."""
    found: T | None
    """What was measured before; None where this job is to measure, on every process."""
    ranks: Ranks
    """The processes of this job."""
    lease: Lease | None
    """On the file, on the first process while it measures."""

    def save(self, result: Savable, beside: bytes | None = None) -> None:
        """Writes the result, after what its .safetensors holds. Every process calls it, and returns when it is there.

        Raises InputError where another job has taken the place over, and OSError where the file cannot be written.
        """

        def write() -> None:
            if self.lease is not None:
                self.lease.check()
                if beside is not None:
                    write_bytes(self.path.with_suffix(".safetensors"), beside)
                result.save(self.path)

        self.ranks.agree(write)


@contextlib.contextmanager
def held_result(
    path: Path,
    ranks: Ranks,
    before: Callable[[], T | None],
    *,
    question: Mapping[str, Any],
    steal: bool = False,
) -> Iterator[ResultPlace[T]]:
    """The block in which this job alone may measure what the file is to hold. Every process calls it.

    before: what was measured before, the same on every process. question: what the result follows from, such as the
    record of a protocol. steal: takes the place from another job that measures it. Raises InputError where there is
    one, or where a process would answer another question, such as with another mixture.
    """
    facts = {name: str(value) for name, value in question.items()}
    ranks.refuse_differences(facts, "use a run folder on a disk that all machines share, and the same shards")
    found = before()
    if found is not None:
        yield ResultPlace(path=path, found=found, ranks=ranks, lease=None)
        return
    with held_by_main(path.parent, ranks, path.stem, steal=steal) as lease:
        # Another job may have ended between the look and the lease.
        yield ResultPlace(path=path, found=before(), ranks=ranks, lease=lease)


def measured_once(
    kind: type[AnyResult], path: Path, protocol: protocols.Protocol, ranks: Ranks, *, steal: bool = False
) -> contextlib.AbstractContextManager[ResultPlace[AnyResult]]:
    """`held_result` for a result by one protocol."""

    def before() -> AnyResult | None:
        found = measured_before(kind, path, protocol)
        return None if ranks.any(found is None) else found

    return held_result(path, ranks, before, question=protocol.record(), steal=steal)
