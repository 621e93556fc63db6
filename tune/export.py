"""The best configuration as a YAML file that `python -m trainer --config` runs as it is."""

import dataclasses
from pathlib import Path

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from trainer.config.config import to_yaml
from tune.report.ranking import Ranked
from tune.sweep_config import SweepConfig


def export_best(sweep: SweepConfig, ranked: list[Ranked], path: Path) -> None:
    """Writes the best configuration with every field. Raises InputError where no trial has been trained to its end."""
    if not ranked:
        raise InputError(
            "no trial was trained to its end, so there is no best one; see the report for the reasons",
            parameter="export_best",
        )
    best = ranked[0]
    config = sweep.trainer_config(f"best-of-{sweep.name}", sweep.seeds[0], best.fields)
    data = dataclasses.replace(config.data, shards=_from_here(config.data.shards))
    config = dataclasses.replace(config, data=data, runs=_from_here(sweep.runs))
    measured = f"{sweep.objectives[0]} {best.mean:.1f} over {len(best.trials)} seed{'s' * (len(best.trials) > 1)}"
    write_text(path, f"# Configuration {best.number} of the sweep {sweep.name}: {measured}.\n{to_yaml(config)}")


def _from_here(path: str) -> str:
    """Relative within the working directory, so that the file can be used on another machine."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
