"""What a sweep writes into a trial's run folder, beside what the trainer writes: which trial it is, and how it went."""

import contextlib
import datetime
import json
import socket
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from data_shards.io.atomic import write_json
from data_shards.io.configuration import build
from data_shards.io.errors import InputError, machine_faults
from data_shards.io.regular_files import read_regular
from tune.search.trials import Trial
from tune.sweep_config import MeasureConfig

Status = Literal["finished", "stopped", "failed", "unfinished"]
_TRIAL, _ATTEMPTS, _OUTCOME, _FAILURE = "trial.json", "attempts.jsonl", "outcome.json", "failure.json"


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """How a trial ended."""

    status: Status
    reason: str = ""
    """Why it was stopped or failed, in one line."""
    again: bool = False
    """True for a failed one that is tried again at the next start: the fault was a machine's."""
    measure: str = ""
    """What was measured, as `measure_key` has it; empty where an earlier version wrote this."""
    parameters: int | None = None
    """Learnt numbers, where the checkpoints that have them were deleted."""


def save_trial(folder: Path, trial: Trial) -> None:
    """Writes which trial the run folder belongs to; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _TRIAL, asdict(trial))


def load_trial(folder: Path) -> Trial:
    """The trial that the run folder belongs to."""
    content = _read(folder / _TRIAL)
    kinds = {"phase": str, "number": int, "seed": int, "fields": dict}
    if not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise _damaged(folder / _TRIAL)
    return Trial(**{name: content[name] for name in kinds})


def trial_of(params: dict[str, Any]) -> Trial:
    """The trial that Ray's trial with these parameters runs."""
    return Trial(**params["trial"])


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file of ours holds."""
    try:
        content = json.loads(read_regular(path))
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: is damaged; restore it, or move {path.parent} away and its trial is trained anew")


def trial_folders(trials_folder: Path) -> list[Path]:
    """The run folders of all trials that have been started, by name."""
    return sorted(path.parent for path in trials_folder.glob(f"*/{_TRIAL}"))


def save_attempt(folder: Path) -> None:
    """Adds a line for a start of the trial's processes."""
    _append(folder, {"at": _now(), "host": socket.gethostname()})


def save_turn(folder: Path) -> None:
    """Adds a line for a place at which the trial has saved and may wait for its next turn: no fault ends it there."""
    _append(folder, {"turn": _now()})


def _append(folder: Path, line: dict[str, str]) -> None:
    path = folder / _ATTEMPTS
    with machine_faults(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def load_attempts(folder: Path) -> list[dict[str, Any]]:
    """One entry a start of the trial's processes, with the keys at and host, without those after it had waited."""
    path = folder / _ATTEMPTS
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # torn, where the machine was lost
            if isinstance(one := json.loads(line), dict):
                found.append(one)
    follows_turn = [False, *("turn" in one for one in found)]
    return [one for one, after in zip(found, follows_turn, strict=False) if "at" in one and not after]


def measure_key(measure: MeasureConfig) -> str:
    """A text that is equal for equal settings."""
    return json.dumps(asdict(measure), sort_keys=True)


def save_failure(folder: Path, reason: str, measure: MeasureConfig | None = None) -> None:
    """Writes that the trial failed because of its own configuration, so that it is not trained again.

    measure: given where it was trained and measuring it failed: it is measured again under other settings.
    """
    write_json(folder / _FAILURE, {"reason": reason} | ({"measure": measure_key(measure)} if measure else {}))


def load_failure(folder: Path) -> str:
    """Why the trial failed because of its own configuration; empty where it did not."""
    path = folder / _FAILURE
    return str(_read(path).get("reason", "")) if path.exists() else ""


def reopen(folder: Path, measure: MeasureConfig, former: MeasureConfig | None) -> bool:
    """Forgets how a trial ended where it is to be tried, or measured, again. Returns whether it was.

    measure: what is to be measured; former: what was, where the outcome does not say so.
    """
    outcome, failure = load_outcome(folder), folder / _FAILURE
    failed_with = _read(failure).get("measure") if failure.exists() else None
    if not (
        outcome.again
        or (failed_with is not None and _measure(failed_with) != measure)
        or (is_measured_otherwise(folder, measure, former) and any(folder.glob("checkpoints/*/COMPLETE")))
    ):
        return False
    for path in (failure, folder / _OUTCOME):
        path.unlink(missing_ok=True)
    return True


def is_measured_otherwise(folder: Path, measure: MeasureConfig, former: MeasureConfig | None) -> bool:
    """Whether a trial was trained to its end and measured, but not as now. Arguments as of `reopen`."""
    outcome = load_outcome(folder)
    return outcome.status == "finished" and (_measure(outcome.measure) or former or measure) != measure


def _measure(key: str) -> MeasureConfig | None:
    """What `measure_key` made a text of; None where it is of no measure of today, or no such text."""
    try:
        return build(MeasureConfig, json.loads(key)) if key else None
    except (ValueError, TypeError):  # InputError is a ValueError
        return None


def save_outcome(folder: Path, outcome: TrialOutcome) -> None:
    """Writes how the trial ended."""
    write_json(folder / _OUTCOME, asdict(outcome))


def save_parameters(folder: Path, parameters: int | None) -> None:
    """Notes how many numbers the trial has learnt, before its checkpoints are deleted."""
    path = folder / _OUTCOME
    if parameters is not None and path.exists():
        write_json(path, _read(path) | {"parameters": parameters})


def has_outcome(folder: Path) -> bool:
    """True where `save_outcome` has been called for the trial."""
    return (folder / _OUTCOME).exists()


def load_outcome(folder: Path) -> TrialOutcome:
    """How the trial ended; a failure because of its own configuration comes before any other outcome."""
    path = folder / _OUTCOME
    content: dict[str, Any] = _read(path) if path.exists() else {"status": "unfinished"}
    kinds = {"status": str, "reason": str, "again": bool, "measure": str, "parameters": int | None}
    if content.get("status") not in get_args(Status) or not all(
        isinstance(content[name], kind) for name, kind in kinds.items() if name in content
    ):
        raise _damaged(path)
    written = TrialOutcome(**{one.name: content[one.name] for one in fields(TrialOutcome) if one.name in content})
    reason = load_failure(folder)
    return replace(written, status="failed", reason=reason, again=False) if reason else written
