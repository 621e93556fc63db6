"""What a sweep writes into a trial's run folder, beside what the trainer writes: which trial it is, and how it went."""

import datetime
import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from data_shards.io.atomic import write_json
from tune.search.trials import Trial

Status = Literal["finished", "stopped", "failed", "unfinished"]
_TRIAL, _ATTEMPTS, _OUTCOME, _FAILURE = "trial.json", "attempts.jsonl", "outcome.json", "failure.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended."""

    status: Status
    reason: str = ""
    """Why it was stopped or failed, in one line."""


def save_trial(folder: Path, trial: Trial) -> None:
    """Writes which trial the run folder belongs to; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _TRIAL, asdict(trial))


def load_trial(folder: Path) -> Trial:
    """The trial that the run folder belongs to."""
    return Trial(**json.loads((folder / _TRIAL).read_text()))


def trial_folders(trials_folder: Path) -> list[Path]:
    """The run folders of all trials that have been started, by name."""
    return sorted(path.parent for path in trials_folder.glob(f"*/{_TRIAL}"))


def save_attempt(folder: Path, placement_group: str) -> None:
    """Adds a line for a start of the trial's processes.

    placement_group: hexadecimal id of the Ray placement group that holds their CPUs and GPUs; empty for none.
    """
    line = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "placement_group": placement_group,
    }
    with (folder / _ATTEMPTS).open("a") as file:
        file.write(json.dumps(line) + "\n")


def load_attempts(folder: Path) -> list[dict[str, Any]]:
    """One entry a start of the trial's processes, with the keys at, host and placement_group."""
    path = folder / _ATTEMPTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def save_failure(folder: Path, reason: str) -> None:
    """Writes that the trial failed because of its own configuration, so that it is not trained again."""
    write_json(folder / _FAILURE, {"reason": reason})


def load_failure(folder: Path) -> str:
    """Why the trial failed because of its own configuration; empty where it did not."""
    path = folder / _FAILURE
    return str(json.loads(path.read_text()).get("reason", "")) if path.exists() else ""


def save_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes how the trial ended."""
    write_json(folder / _OUTCOME, asdict(outcome))


def has_outcome(folder: Path) -> bool:
    """True where `save_outcome` has been called for the trial."""
    return (folder / _OUTCOME).exists()


def load_outcome(folder: Path) -> Outcome:
    """How the trial ended; a failure because of its own configuration comes before any other outcome."""
    if reason := load_failure(folder):
        return Outcome(status="failed", reason=reason)
    path = folder / _OUTCOME
    return Outcome(**json.loads(path.read_text())) if path.exists() else Outcome(status="unfinished")
