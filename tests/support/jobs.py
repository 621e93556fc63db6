"""Several processes of one job, started here as a launcher would, each with its own words and environment."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from support.running import ROOT, free_port


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one process of a job ended."""

    code: int
    out: str
    lines: list[str]
    """What it wrote to stderr, but for the notices."""
    notices: list[str]
    """The lines on processes that are waited for: a busy machine brings them about."""


LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def plain_environment() -> dict[str, str]:
    """The environment of a shell without a launcher."""
    taken = ("SLURM_", "OMPI_", "PMI_", "TORCHELASTIC_", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(taken) and name not in LAUNCHED}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def environments(processes: int) -> list[dict[str, str]]:
    """What torchrun sets for each process of one machine, without its agent."""
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def start_job(
    commands: Sequence[Sequence[str]], launched: Sequence[Mapping[str, str]] | None = None
) -> list[subprocess.Popen]:
    """Starts a process for each command (words after `python`). launched: what the launcher sets for each."""
    each = launched or environments(len(commands))
    return [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=plain_environment() | dict(each[rank]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]


def wait_for_job(processes: Sequence[subprocess.Popen], timeout: float = 300) -> list[Ended]:
    """Waits until all have ended, and kills those that have not in time."""
    try:
        said = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [_ended(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def _ended(code: int, out: str, err: str) -> Ended:
    lines = [line for line in err.splitlines() if line.strip()]
    notices = [line for line in lines if re.match(r"waiting for ranks|rank \d+ of \d+ waits for rank 0", line)]
    return Ended(code=code, out=out, lines=[line for line in lines if line not in notices], notices=notices)


def run_job(
    commands: Sequence[Sequence[str]], launched: Sequence[Mapping[str, str]] | None = None, timeout: float = 300
) -> list[Ended]:
    """Starts a process for each command, and waits for all."""
    return wait_for_job(start_job(commands, launched), timeout)
