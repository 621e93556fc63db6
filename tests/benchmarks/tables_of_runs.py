"""What the scripts share that make tables of runs of several seeds: numbers by key, and where tables are kept."""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.errors import InputError  # noqa: E402
from data_shards.io.tables import Table  # noqa: E402
from eval.paper.evidence import Mean, mean_of  # noqa: E402
from eval.paper.kept_tables import KeptTable, keep_tables  # noqa: E402

WEIGHTS = {"stage1": "end of stage 1", "final": "final"}


def results(runs: Sequence[Path], name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each result of that name, with its run."""
    for run in runs:
        for path in sorted((run / "eval").glob(f"{name}-*.json")):
            yield run, json.loads(path.read_text())


class Numbers:
    """Numbers of several runs, one a run, by a key."""

    def __init__(self) -> None:
        self._values: dict[tuple[Any, ...], dict[Path, float]] = defaultdict(dict)

    def add(self, run: Path, value: float, *key: Any) -> None:
        """Raises InputError where the run has such a number already, of other weights."""
        if self._values[key].setdefault(run, value) != value:
            raise InputError(f"{run} has two results for {key}; delete those of earlier weights")

    def of_runs(self, *key: Any) -> dict[Path, float]:
        """The number of each run that has one."""
        return dict(self._values.get(key, {}))

    def shown(self, *key: Any, digits: int, scale: float = 1.0) -> str:
        """Mean ± standard error (runs), or nothing where there is none."""
        values = [scale * value for value in self.of_runs(*key).values()]
        if not values:
            return ""
        error = f" ± {statistics.stdev(values) / len(values) ** 0.5:,.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):,.{digits}f}{error} ({len(values)})"

    def difference(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> Mean | None:
        """The mean of `one` - `other` over the runs that have both; None without any."""
        ours, theirs = self.of_runs(*one), self.of_runs(*other)
        return mean_of([ours[run] - theirs[run] for run in ours if run in theirs])

    @property
    def known(self) -> list[tuple[Any, ...]]:
        """In the order in which they came."""
        return list(self._values)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A table that was made."""

    name: str
    title: str
    table: Table
    text: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """That measured what is in it."""


def table_arguments(description: str) -> argparse.ArgumentParser:
    """The options of a script that makes tables."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders of different seeds")
    parser.add_argument("--keep", type=Path, help="also keep the tables in this folder, results/measured of a checkout")
    parser.add_argument("--dataset", default="fashion-mnist", help="the chapter of RESULTS.md that shows them")
    return parser


def show(made: Sequence[Made], args: argparse.Namespace, script: str) -> None:
    """Prints tables in Markdown, and keeps them where that is asked for. Those without rows are left out.

    script: its name, for the command that made the tables; runs are called runs/NAME there.
    """
    found = [one for one in made if one.table.rows]
    for one in found:
        print(f"### {one.title}\n\n{one.table.to_markdown()}", end="\n\n")
    if args.keep:
        command = f"python tests/benchmarks/{script} --runs {' '.join(f'runs/{run.name}' for run in args.runs)}"
        kept = [_kept(one, command) for one in found]
        keep_tables(args.keep, args.dataset, kept)


def _kept(made: Made, command: str) -> KeptTable:
    return KeptTable(
        name=made.name,
        title=made.title,
        text=made.text,
        commands=(*made.commands, command),
        head=made.table.head,
        rows=tuple(made.table.rows),
    )
