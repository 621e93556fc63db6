"""Ways of doing the same work, each in processes of its own, that take turns in short rounds.

A machine that others use too changes its speed from second to second. Turns that follow each other meet the same speed,
so the median over rounds of the ratio of two turns is steadier than any ratio of totals.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from support.running import free_port

from trainer.process_group import process_group

Work = Callable[[Callable[[], None]], None]
"""Called once with a function that it calls at the end of each turn, and that returns when the next begins."""


class Turns:
    """One way: `script FOLDER --way NAME WORDS` in a process for each of `cores`, with `threads` of torch in each.

    cores: the cores of each process. Several processes form a group as under srun, or know nothing of each other where
    they are `apart`. FOLDER takes their messages.
    """

    def __init__(
        self,
        script: str,
        folder: Path,
        name: str,
        *words: str,
        cores: Sequence[set[int]],
        threads: int = 1,
        apart: bool = False,
    ) -> None:
        shared = {"SLURM_NTASKS": str(1 if apart else len(cores)), "SLURM_STEP_ID": "0", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": str(threads)}
        self._log = folder / f"{name}.log"
        with self._log.open("w") as log:
            self._processes = [
                subprocess.Popen(
                    [
                        *("taskset", "-c", ",".join(map(str, sorted(used)))),
                        *(sys.executable, script, str(folder), f"--way={name}", *words),
                    ],
                    env={**os.environ, **shared, **dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID"), str(rank))},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
                for rank, used in zip([0] * len(cores) if apart else range(len(cores)), cores, strict=True)
            ]

    def take(self) -> float:
        """One turn of all processes. Returns its seconds."""
        began = time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(self._log.read_text()[-4000:])
        return time.perf_counter() - began

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.communicate()


def work_in_turns(work: Work) -> None:
    """The other side of `Turns`: runs `work` in this process, a turn whenever a line comes in."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the work prints goes to the log

    def wait() -> None:
        sys.stdin.readline()

    def turn_over() -> None:
        print(file=answers, flush=True)
        wait()

    with process_group():
        wait()
        work(turn_over)


def take_turns(ways: dict[str, Turns], rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn by way, every other round backwards. Two rounds that warm up are left out."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for round_ in range(rounds + 2):
            for name in list(ways)[:: -1 if round_ % 2 else 1]:
                seconds[name].append(ways[name].take())
    finally:
        for way in ways.values():
            way.close()
    return {name: values[2:] for name, values in seconds.items()}
