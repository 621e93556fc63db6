"""What is known of one training of a plan: its measurements, and what they stand on."""

import json
import subprocess
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from eval.paper.asks import Ask, measured_as
from eval.paper.plan import Measurements

FILE = "reproduction.json"


@dataclass(kw_only=True)
class Record:
    """The measurements of one training. Every result carries its own protocol."""

    configuration: str
    """Hash of the configuration trained with, see `jobs.configuration_hash`."""
    data: str
    """Hash of the shards' manifest."""
    commit: str
    """The commit that was trained and measured by; `-dirty` where files had been changed."""
    commands: list[str] = field(default_factory=list)
    """Every command, in order."""
    training: dict[str, Any] = field(default_factory=dict)
    """images, seconds, and the end of each stage as metrics.jsonl has it."""
    results: dict[str, Any] = field(default_factory=dict)
    """Results by `Ask.key`."""

    def missing(self, asks: tuple[Ask, ...]) -> list[Ask]:
        """The questions without an answer."""
        return [ask for ask in asks if ask.key not in self.results]

    def measured_as(self, measure: Measurements) -> "Record":
        """The record without the results that were measured by another protocol than the plan's."""
        kept = {key: result for key, result in self.results.items() if measured_as(key.split()[0], result, measure)}
        return replace(self, results=kept)

    def save(self, run: Path) -> None:
        """Writes RUN/reproduction.json."""
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / FILE, asdict(self))


def read_record(run: Path) -> Record | None:
    """The record in a run folder, or None where there is none. Raises InputError where it is damaged."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        return Record(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is no record of measurements ({error}); delete it and measure again") from error


def commit() -> str:
    """The commit of the code that runs, `-dirty` where the code was changed since; empty outside a repository."""
    root = Path(__file__).parents[2]
    name = _git(root, "rev-parse", "--short=10", "HEAD")
    code = [f"{room}/*.py" for room in ("data_shards", "trainer", "eval")]
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *code)
    return f"{name}-dirty" if name and changed else name


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
