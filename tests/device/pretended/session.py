"""Trainings and commands, on the CPU or the pretended GPU, in a process that is there for them.

One process does many, because starting it takes longer than they do. The main process writes what happened beside the
job: for each training what one update did, in each stage; for each command what it printed or why it failed.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

from device.pretended.collectives import require_no_graphs
from device.pretended.counts import COUNTS
from device.pretended.install import install

from trainer.__main__ import read_command_line
from trainer.loop import train
from trainer.process_group import process_group
from trainer.updates.learner import Learner

# The updates of a stage of which one is looked at: those before warm up, and no line of the log is due.
FIRST, LAST = 5, 8


class Updates:
    """What lies between the beginnings of two updates that follow each other, for each stage the one with least."""

    def __init__(self) -> None:
        self.least: dict[int, dict[str, Any]] = {}
        self._seen: dict[int, int] = {}
        original = Learner.update

        def update(learner: Any, batch: Any, stages: Any, **others: Any) -> Any:
            self._begin(stages.state.stage)
            return original(learner, batch, stages, **others)

        Learner.update = update  # type: ignore[method-assign]

    def clear(self) -> None:
        """Begins a new training."""
        self.least, self._seen = {}, {}
        COUNTS.clear()

    def _begin(self, stage: int) -> None:
        number = self._seen[stage] = self._seen.get(stage, 0) + 1
        if FIRST < number <= LAST:
            table = COUNTS.table()
            least = self.least.get(stage)
            if least is None or total(table) < total(least):
                self.least[stage] = table
        if number >= FIRST:
            COUNTS.clear()


def total(table: dict[str, Any]) -> tuple[int, ...]:
    """Orders tables by waits, then by launches."""
    return tuple(sum(times for *_, times in table[name]) for name in ("waits", "pageable", "launches"))


def stopped_once(words: list[str], after: int) -> None:
    """Trains, but is stopped at that line of its log and started again."""
    config, lines = read_command_line(words).config, []

    def listener(kind: str, images: int, facts: object) -> None:
        if kind == "train":
            lines.append(images)
            if len(lines) == after:
                (config.folder / "STOP").touch()

    train(config, listener)
    require_no_graphs()
    (config.folder / "STOP").unlink(missing_ok=True)
    train(config)


def trial(words: list[str], caps: list[int]) -> list[dict[str, Any]]:
    """A trial of a sweep, as its processes carry it out without Ray; returns what it reports."""
    from tune.search.stopping import TrialBudget
    from tune.search.trials import Trial
    from tune.sweep_config import MeasureConfig
    from tune.trial.folder import save_trial
    from tune.trial.worker import Task, carry_out

    reports: list[dict[str, Any]] = []
    measure = MeasureConfig(images=30, mixture=2, likelihood_images=10, likelihood_samples=2)
    config = read_command_line(words).config
    budget = TrialBudget(caps=tuple(caps), first_share=50.0)
    task = Task(config=config, measure=measure, budget=budget, rungs=(50.0,), min_images=0)
    if os.environ.get("RANK", "0") == "0":
        save_trial(config.folder, Trial(phase="search", number=0, seed=0, fields={}))
    carry_out(task, reports.append if os.environ.get("RANK", "0") == "0" else None)
    return reports


def carry_out_job(path: str) -> None:
    """Does the job that the file describes, as one process of it."""
    job = json.loads(Path(path).read_text())
    if job["pretended"]:
        install()
    updates, found = Updates(), {"trainings": {}, "commands": {}}
    with process_group(job["device"]):
        for name, words in job.get("trainings", {}).items():
            updates.clear()
            try:
                if name in job.get("stopped", {}):
                    stopped_once(words, job["stopped"][name])
                else:
                    train(read_command_line(words).config)
                require_no_graphs()
                found["trainings"][name] = {str(stage): table for stage, table in updates.least.items()}
            except BaseException:
                found["trainings"][name] = {"failure": traceback.format_exc()}
                if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                    raise
        if "trial" in job:
            found["trial"] = trial(**job["trial"])
    for name, words in job.get("commands", {}).items():
        COUNTS.clear()
        sys.argv, printed = list(words), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                runpy.run_module(words[0], run_name="__main__", alter_sys=True)
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = traceback.format_exc()
        found["commands"][name] = {"code": code, "printed": printed.getvalue(), "counts": COUNTS.table()}
    if os.environ.get("RANK", "0") == "0":
        Path(path).with_suffix(".found.json").write_text(json.dumps(found))
