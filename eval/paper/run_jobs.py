"""From a plan to finished jobs: what is known already is left alone, the rest is trained and measured."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.manifest import FILE, Manifest
from eval.paper.drawings import picture_path
from eval.paper.jobs import Job, configuration_hash, resolved
from eval.paper.measured import merged
from eval.paper.peers import read_peers
from eval.paper.plan import Plan
from eval.paper.record import Record, read_record
from eval.paper.schedule import Outcome, run_here, run_on_ray
from eval.paper.shards import ensure_shards
from eval.paper.worker import Work


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how jobs are carried out."""

    runs: Path
    """Folder that holds the run folders."""
    processes: int
    """Jobs at a time on this machine."""
    device: str
    """cpu or cuda."""
    address: str = ""
    """A Ray cluster to send them to; empty for this machine."""
    source: str | None = None
    """Where the images lie, for shards that are missing."""


def known_records(
    plan: Plan, jobs: Sequence[Job], runs: Path | None, measured: Mapping[str, Record]
) -> dict[str, Record]:
    """What is known of each job by its name: from its run folder under `runs`, else from `measured`.

    A record counts only where it is of the same configuration, and of the same shards where those are there.
    """
    data = Manifest.load(plan.shards).hash if (Path(plan.shards) / FILE).exists() else None
    found = {}
    for job in jobs:
        name = job.training.name
        candidates = (read_record(runs / name) if runs else None, measured.get(name))
        if not any(candidates):
            continue
        wanted = configuration_hash(resolved(plan, job.training))
        ours, kept = (r if r and r.configuration == wanted and data in (None, r.data) else None for r in candidates)
        if record := merged(ours, kept):
            if runs:
                record = dataclasses.replace(record, results=record.results | read_peers(runs / name))
            record = record.measured_as(plan.measure)
            if record.results:
                found[name] = record
    return found


def undone(jobs: Sequence[Job], records: Mapping[str, Record], runs: Path, pictures: Path) -> list[Job]:
    """The jobs of which something is missing. pictures: where those of former runs are kept."""

    def drawn(job: Job, name: str) -> bool:
        path = picture_path(runs / job.training.name, name)
        return path.exists() or (pictures / path.name).exists()

    return [
        job
        for job in jobs
        if (record := records.get(job.training.name)) is None
        or record.missing(job.asks)
        or not all(drawn(job, picture) for picture in job.pictures)
    ]


def carry_out(plan: Plan, jobs: Sequence[Job], place: Place) -> list[Outcome]:
    """Trains and measures; every job's words go to RUNS/NAME.log. Returns how each ended."""
    if not jobs:
        return []
    ensure_shards(plan, place.source)
    files, logs = [], []
    for job in jobs:
        made = job.training
        config = resolved(plan, made)
        fields = {**made.fields, "runs": str(place.runs), "name": made.name}
        fields |= {"data.shards": plan.shards, "device": place.device}
        words = ["trainer", "--config", plan.config, *(f"--{name}={_text(value)}" for name, value in fields.items())]
        work = Work(
            run=str(place.runs / made.name),
            configuration=configuration_hash(config),
            train=words,
            shards=plan.shards,
            asks=job.asks,
            pictures=job.pictures,
            measure=plan.measure,
            device=place.device,
        )
        files.append(place.runs / "jobs" / f"{made.name}.json")
        logs.append(place.runs / f"{made.name}.log")
        work.save(files[-1])
    if place.address:
        return run_on_ray(files, logs, place.address, _tell)
    return run_here(files, logs, place.processes, _tell)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _text(value: object) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list | tuple) else str(value)


def _tell(outcome: Outcome, done: int, total: int) -> None:
    state = f"FAILED: {outcome.failure}" if outcome.failure else "done"
    print(f"{done} of {total}  {outcome.name}: {state}", flush=True)
