"""One process of a trial: the trainer trains in it, and eval measures. Ranks and process group are made by team.py."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from data_shards.io.errors import InputError, MachineFault
from data_shards.io.lease import LeaseHeld, LeaseLost
from eval.distance.comparison import measure_distance
from eval.images.encoding import encode_split
from eval.measurements.likelihood import measure_likelihood
from eval.run import load_run
from trainer.config.config import Config
from trainer.loop import train
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import process_group
from trainer.run_folder.log import read_events
from tune.search.stopping import AtRungs, TrialBudget
from tune.sweep_config import MeasureConfig
from tune.trial.folder import save_failure, save_turn
from tune.trial.pause import wait_while_paused
from tune.trial.questions import likelihood, reconstruction_distance, sample_distance
from tune.trial.record import reported_metrics

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all processes of a trial are given."""

    config: Config
    """The trainer's configuration."""
    measure: MeasureConfig
    """What is measured at the end."""
    budget: TrialBudget
    """The images that the trial may see."""
    rungs: tuple[float, ...]
    """Where it is compared with others, in percent of its budget."""
    min_images: int
    """Images that it has seen before."""
    takes_turns: bool = False
    """Whether it may wait at a rung while others train: it saves before it reports there."""
    may_change: bool = False
    """Whether it may go on from its checkpoint with another learning rate."""


def carry_out(task: Task, report: Report | None) -> None:
    """Trains, or continues training, then measures; all processes of a trial call it.

    report: takes what the trial reaches at its rungs, and its end; on rank 0, else None. It may raise SystemExit, which
    ends the trial on all processes. A fault of the configuration is written into the run folder and reported; any
    other error is raised, and the trial may be tried again.
    """
    folder = task.config.folder
    measuring = False
    try:
        checks = _Checks(task, report)
        while True:
            train(task.config, checks, allow_change=task.may_change, asked_to_stop=lambda: checks.due)
            wait_while_paused(folder)
            if not checks.due:
                break
            if report is not None:
                (folder / "requeue").unlink(missing_ok=True)
                save_turn(folder)
            checks.send_due()
        _refuse_a_stopped_run(folder)
        measuring = True
        measure_trial(task.config, task.measure)
    except Exception as error:
        wait_while_paused(folder)  # a training that begins meanwhile is refused, which is no fault of its own
        # With STOP in its folder a run does not start, whatever its configuration is.
        reason = "" if (folder / "STOP").exists() else configuration_fault(error)
        if not reason:
            raise
        save_failure(folder, reason, task.measure if measuring else None)
        # The processes may have left off at different places: they are not used again.
        if dist.is_initialized():
            raise
        assert report is not None
        report({"failed": True})
        return
    if dist.is_initialized():
        dist.barrier()
    if report is not None:
        report(reported_metrics(folder, task.measure) | {"progress": 100.0, "finished": True})


class _Checks:
    """Listens to the events of a run, which come in the same order on all processes, and reports at the rungs."""

    def __init__(self, task: Task, report: Report | None) -> None:
        self._task, self._report = task, report
        self._due: list[dict[str, Any]] = []
        self._began = False
        self._at_rungs = AtRungs(budget=task.budget, rungs=task.rungs, min_images=task.min_images)

    def __call__(self, kind: str, images: int, facts: dict[str, Any]) -> None:
        if kind == "resume" and not self._began:
            self._resume(images)
        self._began = True
        settled = self._at_rungs.event(kind, images, facts)
        if kind == "valid":
            self._send(settled, images, facts["stage"], settled_before=False)

    @property
    def due(self) -> bool:
        """Whether the training is to save and return, before what it has reached is reported."""
        return bool(self._due)

    def send_due(self) -> None:
        """Reports what was reached before the training returned."""
        due, self._due = self._due, []
        self._report_all(due)

    def _resume(self, images: int) -> None:
        """Reports what the run reached before it was interrupted: this sweep may not know of it."""
        settled: list[tuple[float, float]] = []
        for event in read_events(self._task.config.folder):
            if event["images"] <= images:
                settled += self._at_rungs.event(event["event"], event["images"], event)
        self._send(settled, images, 0, settled_before=True)

    def _send(self, settled: Sequence[tuple[float, float]], images: int, stage: int, *, settled_before: bool) -> None:
        facts = {"images": images, "stage": stage, "settled": settled_before, "finished": False}
        reached = [
            facts | {"progress": rung, "elbo": elbo, "last": (rung, elbo) == settled[-1]} for rung, elbo in settled
        ]
        if self._task.takes_turns and not settled_before:
            self._due += reached
        else:
            self._report_all(reached)

    def _report_all(self, reached: Sequence[dict[str, Any]]) -> None:
        ends = False
        if self._report is not None:
            try:
                for facts in reached:
                    self._report(facts)
            except SystemExit:
                ends = True
        if _on_any(ends):
            raise SystemExit(0)


def _on_any(flag: bool) -> bool:
    """True on all processes where it is on one."""
    if not dist.is_initialized():
        return flag
    device = torch.device("cuda" if "nccl" in dist.get_backend() else "cpu")
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value)
    return bool(value.item())


def measure_trial(config: Config, measure: MeasureConfig) -> None:
    """Writes the run's eval/*.json. All processes of the trial take part; nothing is measured twice."""
    if measure.images == 0 and measure.likelihood_images == 0:
        return
    with process_group(config.device) as ranks:
        for weights in ("stage1", "final") if config.two_stages else ("final",):
            run = load_run(config.folder, weights, ranks.device)
            if measure.mixture:
                for split in (config.data.train_split, config.data.valid_split):
                    encode_split(run, split, ranks)
                fit_run_mixture(config.folder, Settings(n_components=measure.mixture), weights=weights, ranks=ranks)
            of_reconstructions = reconstruction_distance(measure) if weights == "final" else None
            for distance in (sample_distance(measure, weights), of_reconstructions):
                if distance is not None:
                    measure_distance(run, distance, ranks)
            if (question := likelihood(measure)) is not None:
                measure_likelihood(run, question, ranks)


def _refuse_a_stopped_run(folder: Path) -> None:
    if (folder / "requeue").exists():
        raise RuntimeError(f"the training was stopped before its end: {(folder / 'requeue').read_text().strip()}")


def configuration_fault(error: BaseException) -> str:
    """Why the configuration cannot be trained, in one line: trained again, it would fail again.

    Empty for any other error: a fault of the machine, a lost connection, a run folder in which another process works,
    memory that others take.
    """
    if isinstance(error, MachineFault | LeaseHeld | LeaseLost):
        return ""
    if isinstance(error, InputError):
        return str(error)
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory: {first}" if _has_most_of_the_gpu() else ""
    # torch has no class of its own for a failed allocation on a CPU.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        asked = re.search(r"(?:allocate|allocate array with shape .*?) (\d+) bytes", str(error))
        too_much = asked is not None and int(asked[1]) > psutil.virtual_memory().total
        return f"out of memory: {first}" if too_much else ""
    return ""


def _has_most_of_the_gpu() -> bool:
    """Whether this process, and no other one, has filled the GPU."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() < 0.1 * total
