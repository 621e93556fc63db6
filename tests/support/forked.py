"""Trainings as processes of their own, forked from one that has imported everything, so that a start is quick."""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from support.running import free_port

# As `trainer.group_command` does it before torch is imported, which the server of the forks does.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
Work = Callable[..., None]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["trainer.__main__", "trainer.loop", "data_shards.stream.stream", "support.forked"])


def _trainer(*arguments: str) -> None:
    from trainer.__main__ import run
    from trainer.stop_signals import one_line_for_signals

    one_line_for_signals()
    sys.argv = sys.orig_argv = ["trainer", *arguments]
    sys.exit(run())


def _in_fork(work: Work, arguments: Sequence[str], environment: dict[str, str], output: Path) -> None:
    os.setsid()  # a terminal of its own, so to speak
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the system's own, as in a process of the command line
    work(*arguments)


@dataclass
class Job:
    """Some processes, as srun starts them: none stands between us and them."""

    processes: list[BaseProcess]
    outputs: list[Path]

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        processes: int,
        folder: Path,
        only: Sequence[int] | None = None,
        work: Work = _trainer,
    ) -> "Job":
        """`python -m trainer ARGUMENTS`, or other work that is given them.

        folder: for what they print; only: the ranks that are started, where not all are.
        """
        group = {"OMP_NUM_THREADS": "1"}
        if processes > 1:
            group |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        started, outputs = [], []
        for rank in range(processes) if only is None else only:
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            outputs.append(folder / f"output-{rank}.txt")
            started.append(_context.Process(target=_in_fork, args=(work, arguments, group | own, outputs[-1])))
            started[-1].start()
        return cls(started, outputs)

    def kill(self, number: int, ranks: Iterable[int], *, with_children: bool = False) -> None:
        """Sends a signal to the processes, as a batch system does, or to their readers too, as Ctrl-C does."""
        for rank in ranks:
            pid = self.processes[rank].pid
            if pid is not None and self.processes[rank].is_alive():
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if with_children else os.kill)(pid, number)

    def wait(self, seconds: float) -> list[int]:
        """The exit codes, negative for the number of a signal that ended the process."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        alive = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for process in self.processes:
            process.kill()
        assert not alive, f"ranks {alive} did not end within {seconds} s: {self.said()[-2000:]}"
        return [process.exitcode or 0 for process in self.processes]

    def said(self) -> str:
        """What all processes printed."""
        return "".join(output.read_text(errors="replace") for output in self.outputs if output.exists())
