"""How the processes of a job exchange facts and failures beside their sums: that they started, what they found.

They use torch's key-value store, which answers at once whatever the others do, where a collective waits for half an
hour.
"""

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from data_shards.io.errors import InputError
from data_shards.io.processes import Process, this_process
from trainer.peers.compare import ranks_and_hosts
from trainer.peers.failure import Failure, print_failures
from trainer.peers.launcher import PlaceInJob
from trainer.peers.store import STORE_ERRORS, PrefixStore, Store
from trainer.peers.watch import Watch

# One process may write a checkpoint while the others wait; `Watch` looks after it meanwhile.
_ANSWER_SECONDS = 1800.0
# After one process has failed, how long the others may take to start.
_FAILED_START_SECONDS = 30.0
_SECONDS_BETWEEN_SCANS, _SECONDS_BETWEEN_NOTICES = 0.5, 10.0


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one process has posted in a round."""

    process: Process
    facts: dict[str, str]
    failure: Failure | None

    @classmethod
    def from_json(cls, text: str | bytes) -> "_Answer":
        content = json.loads(text)
        failure = content["failure"]
        return cls(
            process=Process(**content["process"]),
            facts=content["facts"],
            failure=Failure(**failure) if failure else None,
        )


class Rendezvous:
    """One process's side of a job of several.

    store: the store of the job. prefix: the same on all processes, and not used before in this store. listens: whether
    the store is in this process, so that it must be the last to leave.
    """

    def __init__(self, store: Store, place: PlaceInJob, *, prefix: str, listens: bool) -> None:
        self.rank, self.world_size, self.listens = place.rank, place.world_size, listens
        self.hosts: list[str] = []
        """The machine of each rank, once `arrive` has returned."""
        self._store = PrefixStore(prefix, store)
        self.watch = Watch(PrefixStore(prefix, store.clone()), place.rank, place.world_size)
        self._round = 0
        self._has_failed = False

    def store_of_group(self) -> Store:
        """A store for torch's process group, which has keys of its own."""
        return PrefixStore("group", self._store)

    def arrive(self, facts: Mapping[str, str], failure: Failure | None, seconds: float) -> list[dict[str, str]]:
        """Waits for all processes, and returns the `facts` of each.

        failure: why this process cannot start; it waits all the same, so that the others read it, and then returns.
        Raises SystemExit where another process has failed, after a line for each reason, and InputError where one does
        not come in time.
        """
        answers = self._collect(facts, failure, seconds)
        missing = sorted(set(range(self.world_size)) - set(answers))
        if self._end_together(answers) or failure:
            return []
        if missing:
            raise InputError(
                f"{'ranks' if len(missing) > 1 else 'rank'} {', '.join(map(str, missing))} of {self.world_size} did "
                f"not come within {seconds:.0f} s; start as many processes as WORLD_SIZE says"
            )
        others = [answers[rank].process for rank in range(self.world_size)]
        self.hosts = [other.host for other in others]
        self.watch.start(others)
        return [answers[rank].facts for rank in range(self.world_size)]

    def exchange(self, facts: Mapping[str, str], failure: Failure | None = None) -> list[dict[str, str]]:
        """The facts of each process, in the order of ranks, once all have called this.

        failure: why this process ends; see `arrive`.
        """
        answers = self._collect(facts, failure, _ANSWER_SECONDS)
        if self._end_together(answers):
            return []
        if len(answers) < self.world_size:
            missing = set(range(self.world_size)) - set(answers)
            raise InputError(
                f"{ranks_and_hosts({rank: self.hosts[rank] for rank in missing})} did not answer within "
                f"{_ANSWER_SECONDS:.0f} s"
            )
        return [answers[rank].facts for rank in range(self.world_size)]

    def fail(self, failure: Failure) -> None:
        """Posts why this process ends, and waits until the others have read it, at most some seconds."""
        self.watch.ending = self._has_failed = True
        with contextlib.suppress(*STORE_ERRORS):
            first = self._store.compare_set("failure", "", json.dumps(asdict(failure)))
            self._store.set(f"heard/{self.rank}", "")
            if json.loads(first)["rank"] == self.rank:
                self._wait_for("heard", seconds=4.0)

    def leave(self) -> None:
        """Ends the watch, as this process will end; the process with the store waits until all others have left."""
        self.watch.stop()
        with contextlib.suppress(*STORE_ERRORS):
            self._store.set(f"left/{self.rank}", "")
            # After a failure of this process the others may be in a collective that ends when this process does.
            if self.listens and not self._has_failed:
                self._wait_for("left", seconds=10.0)

    def _end_together(self, answers: Mapping[int, _Answer]) -> bool:
        """Whether a process has failed; raises SystemExit where its own error is not for this one to report."""
        failures = [answer.failure for answer in answers.values() if answer.failure]
        if not failures:
            return False
        self.watch.ending = True
        mine = [failure for failure in failures if failure.rank == self.rank]
        if not mine:
            print_failures(failures)
            raise SystemExit(max(failure.code for failure in failures))
        # Where all fail for the same reason, one of them reports it.
        alike = len(failures) == self.world_size and len({failure.reason for failure in failures}) == 1
        if alike and self.rank > 0:
            raise SystemExit(mine[0].code)
        print_failures([failure for failure in failures if failure.reason != mine[0].reason])
        return True

    def _collect(self, facts: Mapping[str, str], failure: Failure | None, seconds: float) -> dict[int, _Answer]:
        """The answers of all ranks in this round; of fewer where one failed or where `seconds` are over."""
        self._round += 1
        posts, answers = f"round {self._round}/", dict[int, _Answer]()
        own = {"process": asdict(this_process()), "facts": dict(facts), "failure": asdict(failure) if failure else None}
        self.watch.ending |= failure is not None
        now = time.monotonic()
        deadline, next_scan, next_notice, pause = now + seconds, now, now + _SECONDS_BETWEEN_NOTICES, 0.001
        try:
            self._store.set(f"{posts}{self.rank}", json.dumps(own))
            self._store.add(f"{posts}count", 1)
            while len(answers) < self.world_size and now < deadline:
                all_posted = self._store.add(f"{posts}count", 0) == self.world_size
                if all_posted or now >= next_scan:
                    next_scan = now + _SECONDS_BETWEEN_SCANS
                    self._read(posts, answers)
                    if len(answers) == self.world_size:
                        break
                    if any(answer.failure for answer in answers.values()):
                        deadline = min(deadline, now + _FAILED_START_SECONDS)
                    if failure is None and self._store.check(["failure"]):
                        self.watch.note(Failure(**json.loads(self._store.get("failure"))))
                if failure is None and self.watch.failure is not None:
                    raise SystemExit(self.watch.failure.code)
                if not self.hosts and now >= next_notice:
                    next_notice += 3 * _SECONDS_BETWEEN_NOTICES
                    self._print_missing(answers)
                time.sleep(pause)
                now, pause = time.monotonic(), min(2 * pause, 0.05)
            # All have read the round before the last one.
            self._store.delete_key(f"round {self._round - 2}/{self.rank}")
        except STORE_ERRORS as error:
            if failure is None:
                self.watch.note(self.watch.failure_of_store(error))
                raise SystemExit(1) from error
        return answers

    def _read(self, posts: str, answers: dict[int, _Answer]) -> None:
        for rank in set(range(self.world_size)) - set(answers):
            if self._store.check([f"{posts}{rank}"]):
                answers[rank] = _Answer.from_json(self._store.get(f"{posts}{rank}"))

    def _print_missing(self, answers: Mapping[int, _Answer]) -> None:
        missing = sorted(set(range(self.world_size)) - set(answers))
        if self.rank == min(answers, default=self.rank):
            named = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
            print(f"waiting for ranks {named} of {self.world_size} processes to start", file=sys.stderr, flush=True)

    def _wait_for(self, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for rank in range(self.world_size):
            while not any(self._store.check([f"{word}/{rank}"]) for word in {what, "left"}):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)
