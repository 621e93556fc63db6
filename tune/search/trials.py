"""The trials of a sweep: which configuration with which seed, and the folder that each has for good.

A trial's name follows from the number of its configuration and its seed alone. So a trial that is started again, by Ray
or by a person, finds its own run folder and goes on from its last checkpoint.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from data_shards.io.atomic import write_json
from tune.search.space import Fields, grid, random_fields
from tune.sweep_config import SweepConfig

Phase = Literal["search", "confirm"]
_SPEC, _FAILURE = "trial.json", "failure.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a sweep."""

    phase: Phase
    """search, or confirm for the best configuration and the default afterwards."""
    number: int
    """Of the configuration within its phase, from 0."""
    seed: int
    """The trainer's seed."""
    fields: Fields
    """What was drawn for the configuration, by dotted name."""

    @property
    def name(self) -> str:
        """The trial's name and that of its run folder."""
        return f"{self.phase}-{self.number:03d}-seed{self.seed}"


def repeated(phase: Phase, configurations: Iterable[Fields], seeds: Iterable[int]) -> list[Trial]:
    """Each configuration with each seed; all configurations with the first seed come first."""
    drawn = list(configurations)
    return [
        Trial(phase=phase, number=number, seed=seed, fields=fields)
        for seed in seeds
        for number, fields in enumerate(drawn)
    ]


def drawn_ahead(sweep: SweepConfig) -> Iterator[Fields]:
    """The configurations of a grid or random search."""
    if sweep.search == "grid":
        yield from grid(sweep.space)
    else:
        yield from (random_fields(sweep.space, sweep.seed, index) for index in range(sweep.configurations))


def save_trial(folder: Path, trial: Trial) -> None:
    """Writes into a run folder whose trial it is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _SPEC, asdict(trial))


def load_trial(folder: Path) -> Trial:
    """Whose trial a run folder is."""
    return Trial(**json.loads((folder / _SPEC).read_text()))


def trial_folders(trials_folder: Path) -> list[Path]:
    """The run folders of all trials that have been started, by name."""
    return sorted(path.parent for path in trials_folder.glob(f"*/{_SPEC}"))


def note_failure(folder: Path, reason: str) -> None:
    """Remembers that a trial failed by its own configuration, so that nobody trains it again."""
    write_json(folder / _FAILURE, {"reason": reason})


def failure(folder: Path) -> str:
    """Why the trial failed by its own configuration; empty where it did not."""
    path = folder / _FAILURE
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return str(content.get("reason", ""))
