"""The trials of a sweep: which configuration is trained with which seed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tune.search.space import grid, random_fields
from tune.sweep_config import Fields, SweepConfig

Phase = Literal["search", "confirm"]


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
        """The trial's name and that of its run folder.

        It depends on the numbers of configuration and seed alone, so that a trial that is started again, by Ray or by a
        person, finds its run folder and continues from its last checkpoint.
        """
        return f"{self.phase}-{self.number:03d}-seed{self.seed}"


def repeated(phase: Phase, configurations: Iterable[Fields], seeds: Iterable[int]) -> list[Trial]:
    """Each configuration with each seed; all configurations with the first seed come first."""
    drawn = list(configurations)
    return [
        Trial(phase=phase, number=number, seed=seed, fields=fields)
        for seed in seeds
        for number, fields in enumerate(drawn)
    ]


def search_trials(sweep: SweepConfig) -> list[Trial]:
    """All trials of a grid or random search. Raises InputError for a grid over a continuous field."""
    if sweep.search == "grid":
        return repeated("search", grid(sweep.space), sweep.seeds)
    drawn = (random_fields(sweep.space, sweep.seed, index) for index in range(sweep.configurations))
    return repeated("search", drawn, sweep.seeds)


def number_of_search_trials(sweep: SweepConfig) -> int:
    """Trials of the search, before any is stopped early."""
    if sweep.search == "grid":
        return len(search_trials(sweep))
    return sweep.configurations * len(sweep.seeds)
