"""Jobs on the processors of this machine or of a Ray cluster, a process each; a failed one does not stop the rest."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    name: str
    """Of its run."""
    failure: str = ""
    """The last line it said where it failed; empty where it did not."""


Tell = Callable[[Outcome, int, int], None]
"""Takes an outcome, how many jobs have ended, and how many there are."""


def run_job(job: Path, log: Path, started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None) -> Outcome:
    """Carries out the job in `job` in a process of its own, which says everything into `log`."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "eval.paper.worker", str(job)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started(process)
        code = process.wait()
    return Outcome(name=job.stem, failure="" if code == 0 else last_line(log, code))


def last_line(log: Path, code: int) -> str:
    """The last line of a log that says something, or the signal that ended the job."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}; see {log}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit code {code}'}; see {log}"


def run_here(jobs: Sequence[Path], logs: Sequence[Path], processes: int, tell: Tell) -> list[Outcome]:
    """Carries out the jobs, `processes` at a time. An interruption is passed on to them, so that they save and end."""
    running: set[subprocess.Popen[bytes]] = set()
    stopping = threading.Event()

    def started(process: subprocess.Popen[bytes]) -> None:
        running.add(process)

    def one(job: Path, log: Path) -> Outcome:
        if stopping.is_set():
            return Outcome(name=job.stem, failure="not started: the command was interrupted")
        return run_job(job, log, started)

    def stop(number: int, frame: object) -> None:
        stopping.set()
        for process in running:
            if process.poll() is None:
                process.terminate()

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    outcomes = []
    try:
        with ThreadPoolExecutor(processes) as pool:
            ends = [pool.submit(one, job, log) for job, log in zip(jobs, logs, strict=True)]
            for end in as_completed(ends):
                outcomes.append(end.result())
                tell(outcomes[-1], len(outcomes), len(jobs))
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return outcomes


def run_on_ray(jobs: Sequence[Path], logs: Sequence[Path], address: str, tell: Tell) -> list[Outcome]:
    """Carries out the jobs as tasks of a Ray cluster whose machines share this folder, one processor a job."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address: no Ray cluster answers at {address} ({error})") from error
    here = Path.cwd()

    @ray.remote(num_cpus=1, max_retries=2)
    def task(job: str, log: str) -> tuple[str, str]:
        os.chdir(here)
        outcome = run_job(Path(job), Path(log))
        return outcome.name, outcome.failure

    waiting = [task.remote(str(job.resolve()), str(log.resolve())) for job, log in zip(jobs, logs, strict=True)]
    names = {reference: job.stem for reference, job in zip(waiting, jobs, strict=True)}
    outcomes = []
    while waiting:
        (ended,), waiting = ray.wait(waiting)
        try:
            name, failure = ray.get(ended)
        except ray.exceptions.RayError as error:
            name, failure = names[ended], " ".join(str(error).split())[:200]
        outcomes.append(Outcome(name=name, failure=failure))
        tell(outcomes[-1], len(outcomes), len(jobs))
    ray.shutdown()
    return outcomes
