"""Jobs on the processors of this machine or of a Ray cluster, a process each; a failed one does not stop the rest."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from data_shards.io.atomic import write_json
from data_shards.io.configuration import build, configuration
from data_shards.io.errors import InputError
from eval.paper.jobs import Job, ensure_shards
from eval.paper.plan import Fields, Measurements, Plan, resolved
from eval.paper.record import Question
from eval.protocol import fingerprint


@configuration
class Work:
    """A job with all that a process needs to do it."""

    run: str
    """The run folder."""
    config: str
    """The trainer's configuration file."""
    fields: Fields
    """What differs from it."""
    questions: tuple[Question, ...]
    pictures: tuple[str, ...]
    measure: Measurements
    device: str

    def save(self, path: Path) -> None:
        """Writes the job for a worker."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))

    def path(self, runs: Path) -> Path:
        """RUNS/jobs/NAME@ADDRESS.json: commands that ask a training for different things have files of their own."""
        return runs / "jobs" / f"{Path(self.run).name}@{fingerprint(asdict(self))}.json"

    @classmethod
    def load(cls, path: Path) -> "Work":
        """Reads what `save` wrote."""
        return build(cls, json.loads(path.read_text()))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how jobs are run."""

    runs: Path
    """Folder that holds the run folders."""
    processes: int
    """Jobs at a time on this machine; on GPUs at most one for each."""
    device: Literal["cpu", "cuda"]
    """Where their networks run."""
    address: str
    """A Ray cluster to send them to; empty for this machine."""
    source: str | None
    """Where the images lie, for shards that are missing."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    name: str
    """Of its run."""
    failure: str = ""
    """The last line of its log where it failed; empty where it did not."""


def run_jobs(plan: Plan, jobs: Sequence[Job], place: Place) -> Iterator[Outcome]:
    """Trains and measures; every job writes to RUNS/NAME.log. Yields how each ended, in the order in which they end."""
    if not jobs:
        return
    ensure_shards(plan, place.source)
    files = []
    for job in jobs:
        resolved(plan, job.training)  # refused before anything starts
        work = Work(
            run=str(place.runs / job.training.name),
            config=plan.config,
            fields={**job.training.fields, "data.shards": plan.shards},
            questions=job.questions,
            pictures=job.pictures,
            measure=plan.measure,
            device=place.device,
        )
        files.append(work.path(place.runs))
        work.save(files[-1])
    if place.address:
        yield from run_on_ray(files, place.address, on_gpu=place.device == "cuda")
    else:
        yield from run_here(files, place.processes, visible_gpus() if place.device == "cuda" else ())


def run_job(
    job: Path, started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None, *, gpu: str = ""
) -> Outcome:
    """Runs a job, see `Work.path`, in a process of its own, which writes everything into RUNS/NAME.log.

    gpu: the only one that it sees, as CUDA_VISIBLE_DEVICES names it; empty for those that this process sees.
    """
    name = _name(job)
    log = job.parent.with_name(f"{name}.log")
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "eval.paper.worker", str(job)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})},
        )
        started(process)
        code = process.wait()
    return Outcome(name=name, failure="" if code == 0 else last_line(log, code))


def _name(job: Path) -> str:
    """The run of the job in a file."""
    return job.stem.partition("@")[0]


def last_line(log: Path, code: int) -> str:
    """The last line of a log that is not empty, or the signal that ended the job."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}; see {log}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit code {code}'}; see {log}"


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them: by number, or by UUID where it says so."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return tuple(named[:count]) if named else tuple(map(str, range(count)))


def run_here(jobs: Sequence[Path], processes: int, gpus: Sequence[str] = ()) -> Iterator[Outcome]:
    """Runs the jobs, `processes` at a time. An interruption is passed on to them, so that they save and end.

    gpus: where there are any, each job has one of them to itself.
    """
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for gpu in gpus or [""] * processes:
        free.put(gpu)
    running: set[subprocess.Popen[bytes]] = set()
    stopping = threading.Event()

    def one(job: Path) -> Outcome:
        if stopping.is_set():
            return Outcome(name=_name(job), failure="not started: the command was interrupted")
        gpu = free.get()
        try:
            return run_job(job, started, gpu=gpu)
        finally:
            free.put(gpu)

    def started(process: subprocess.Popen[bytes]) -> None:
        running.add(process)
        if stopping.is_set():  # since it was asked above
            process.terminate()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        for process in list(running):  # other threads add to it
            if process.poll() is None:
                process.terminate()

    with _handling(stop), ThreadPoolExecutor(min(processes, len(gpus) or processes)) as pool:
        for end in as_completed([pool.submit(one, job) for job in jobs]):
            yield end.result()


@contextmanager
def _handling(stop: Callable[[int, object], None]) -> Iterator[None]:
    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def run_on_ray(jobs: Sequence[Path], address: str, *, on_gpu: bool) -> Iterator[Outcome]:
    """Runs the jobs as tasks of a Ray cluster whose machines share this folder, one processor a job, and one GPU."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {address} ({error})", parameter="address") from error
    here = Path.cwd()

    # Ray lets a task that asks for a GPU see that one alone.
    @ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_retries=2)
    def task(job: Path) -> Outcome:
        os.chdir(here)
        return run_job(job)

    names = {task.remote(job.resolve()): _name(job) for job in jobs}
    waiting = list(names)
    while waiting:
        (ended,), waiting = ray.wait(waiting)
        try:
            yield ray.get(ended)
        except ray.exceptions.RayError as error:
            yield Outcome(name=names[ended], failure=" ".join(str(error).split())[:200])
    ray.shutdown()
