"""The seam between a run's log and the programs that people look at it with: `log.to` names them.

A new one is a file here with a class of these three methods, and a line in TRACKERS.
"""

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from data_shards.io.errors import InputError

# module:class and the package that it needs.
TRACKERS = {
    "tensorboard": ("trainer.run_folder.trackers.tensorboard:TensorBoard", "tensorboard"),
    "wandb": ("trainer.run_folder.trackers.wandb:WeightsAndBiases", "wandb"),
    "mlflow": ("trainer.run_folder.trackers.mlflow:MLflow", "mlflow"),
}


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is given when it is opened."""

    folder: Path
    name: str
    settings: Mapping[str, Any]
    """The configuration's fields by dotted name."""
    images: int
    """Images seen so far; what was tracked of later ones belongs to updates that are done again."""


class Tracker(Protocol):
    """Takes numbers and pictures; of the main process only."""

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Numbers by name. images: seen by the run."""

    def pictures(self, pictures: Mapping[str, Tensor], images: int) -> None:
        """Pictures by name, uint8 of shape (C, H, W) with C = 1 or 3."""

    def close(self) -> None:
        """Writes what is not written yet."""


def require_trackers(names: Iterable[str]) -> None:
    """Raises InputError where the package behind one of the names is not installed."""
    for name in names:
        if importlib.util.find_spec(TRACKERS[name][1]) is None:
            raise InputError(
                f"{name} is not installed; run `pip install two-stage-sigma-vae[{name}]`, or leave it out",
                parameter="log.to",
            )


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """The tracker behind a name of TRACKERS."""
    # Imported only where it is used: each takes seconds.
    module, _, kind = TRACKERS[name][0].partition(":")
    tracker: Tracker = getattr(import_module(module), kind)(run)
    return tracker
