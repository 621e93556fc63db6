"""A trial of a population takes over another one: its checkpoints, log and fields, with another learning rate.

The copies are made beside what the trial has, and then put in its place; a process that is killed meanwhile does the
rest at its next start. What the trial was before is kept in takeovers/NUMBER of its run folder, without its weights.
"""

import contextlib
import dataclasses
import datetime
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.atomic import write_json, write_text
from data_shards.io.errors import InputError
from data_shards.io.removal import remove_own
from trainer.config.config import load_config, to_yaml
from trainer.run_folder.checkpoint import complete_checkpoints, configuration_file, read_state
from trainer.run_folder.log import read_events
from trainer.run_folder.pruning import remove_checkpoints
from tune.space import Fields
from tune.trial.folder import load_trial

LEARNING_RATE = "optimiser.learning_rate"
_FILE, _FORMER, _STAGING, _READY = "takeovers.jsonl", "takeovers", ".takeover", "takeover.json"
_ATTEMPTS = 20
_STAGED = re.compile(r"metrics\.jsonl|config\.yaml|takeover\.json|\..+\.partial")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a trial is to take over."""

    number: int
    """From 1, of the trial's."""
    source: str
    """Name of the other trial."""
    learning_rate: float
    """With which it goes on."""
    how: str
    """What was done to the other trial's learning rate, as Ray says it: "* 1.2", "resample"."""
    progress: float
    """At which the trial was compared, in percent of its budget."""


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """What a trial has taken over."""

    number: int
    at: str
    """UTC, ISO 8601."""
    source: str
    """Name of the other trial."""
    progress: float
    """At which the trial was compared, in percent of its budget."""
    images: int
    """Of the checkpoint that it goes on from."""
    given_up: int
    """Images of its own training that are lost by it."""
    before: float
    """Learning rate of the other trial."""
    learning_rate: float
    """With which it goes on."""
    how: str
    """What was done to the other trial's learning rate, as Ray says it, or that it was kept."""
    fields: Fields
    """What the trial has from here on, in place of what was drawn for it."""

    def __str__(self) -> str:
        return (
            f"at {self.progress:g} % it took over {self.source} ({self.images:,} images), learning rate "
            f"{self.before:.3g} -> {self.learning_rate:.3g}"
        )


def takeovers(folder: Path) -> tuple[Takeover, ...]:
    """What a trial has taken over, oldest first."""
    path, found = folder / _FILE, []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError):  # torn, where the machine was lost
            found.append(Takeover(**json.loads(line)))
    return tuple(found)


def present_fields(folder: Path) -> Fields:
    """The fields of a trial, in place of the base's: those drawn for it, or what it has taken over last."""
    done = takeovers(folder)
    return done[-1].fields if done else load_trial(folder).fields


def take_over(folder: Path, decision: Decision | None) -> None:
    """Carries a decision out, once, and what a killed process has left of an earlier one.

    Where the other trial has no checkpoint yet, nothing is done. Called while no process trains in `folder`.
    """
    staging = folder / _STAGING
    if not (staging / _READY).exists():
        _discard(staging)
        if decision is None or len(takeovers(folder)) >= decision.number:
            return
        if not _stage(folder, folder.parent / decision.source, decision):
            return
    _put_in_place(folder, staging)


def _stage(folder: Path, source: Path, decision: Decision) -> bool:
    """Copies what is taken over. The other trial may train meanwhile, and delete a checkpoint while it is copied."""
    staging = folder / _STAGING
    for _ in range(_ATTEMPTS):
        _discard(staging)
        events = (source / "metrics.jsonl").read_bytes() if (source / "metrics.jsonl").exists() else b""
        checkpoints = complete_checkpoints(source)
        if not checkpoints:
            return False
        try:
            for checkpoint in checkpoints:
                shutil.copytree(checkpoint, staging / "checkpoints" / checkpoint.name)
        except (shutil.Error, FileNotFoundError):
            time.sleep(0.2)
            continue
        (staging / "metrics.jsonl").write_bytes(events)
        newest = staging / "checkpoints" / checkpoints[-1].name
        # The other trial may have changed its own since its newest checkpoint.
        own = dataclasses.replace(load_config(configuration_file(newest) or source), name=folder.name)
        write_text(staging / "config.yaml", to_yaml(own))
        fields, stages = present_fields(source), read_state(newest).stages
        is_complete = bool(stages.ended) and (stages.stage == 2 or not own.two_stages)
        # No learning rate changes anything of a run that is complete, and another one is refused.
        learning_rate = own.optimiser.learning_rate if is_complete else decision.learning_rate
        done = Takeover(
            number=decision.number,
            at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            source=decision.source,
            progress=decision.progress,
            images=int(checkpoints[-1].name.partition("-")[0]),
            given_up=max((event["images"] for event in read_events(folder)), default=0),
            before=fields[LEARNING_RATE],
            learning_rate=learning_rate,
            how="kept, as that trial is complete" if is_complete else decision.how,
            fields={**fields, LEARNING_RATE: learning_rate},
        )
        write_json(staging / _READY, dataclasses.asdict(done))
        return True
    _discard(staging)
    return False


def _discard(staging: Path) -> None:
    """Removes copies that were not taken over. Raises InputError where there are files of others beside them."""
    if not staging.exists():
        return
    remove_checkpoints(staging)
    with contextlib.suppress(OSError):
        (staging / "checkpoints").rmdir()
    if not remove_own(staging, _STAGED):
        raise InputError(f"{staging}: holds files that no takeover writes; move them elsewhere")


def _put_in_place(folder: Path, staging: Path) -> None:
    """Every step may have been done by a process that was killed after it."""
    done = Takeover(**json.loads((staging / _READY).read_text()))
    former = folder / _FORMER / f"{done.number:03d}"
    former.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoints", "metrics.jsonl", "config.yaml"):
        if (staging / name).exists():
            if (folder / name).exists():
                (folder / name).rename(former / name)
            (staging / name).rename(folder / name)
    remove_checkpoints(former)
    if (folder / "configurations").exists() and not (former / "configurations").exists():
        (folder / "configurations").rename(former / "configurations")
    known = takeovers(folder)
    if len(known) < done.number:
        write_text(folder / _FILE, "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in (*known, done)))
    _discard(staging)
