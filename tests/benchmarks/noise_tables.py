"""Tables of what correlated noise and calibrated intervals do, over runs of several seeds.

    python tests/benchmarks/noise_tables.py --runs runs/demo-0 runs/demo-1 runs/demo-2

Reads what was measured before: `eval likelihood` with each --noise and --floor, `eval uncertainty --noise correlated
--calibrate`, `eval complete`. A number is the mean over the runs, ± its standard error, (runs) behind it. Prints
Markdown.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.errors import InputError, command  # noqa: E402
from data_shards.io.tables import Table  # noqa: E402

NOISES = {
    ("independent", ""): "independent pixels",
    ("correlated", "algorithm1"): "one covariance",
    ("correlated", "none"): "the same, no floor",
    ("correlated-component", "algorithm1"): "one a component",
    ("correlated-component", "none"): "the same, no floor",
}
WEIGHTS = {"stage1": "end of stage 1", "final": "final"}


def results(runs: list[Path], name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each result of that name, with its run."""
    for run in runs:
        for path in sorted((run / "eval").glob(f"{name}-*.json")):
            yield run, json.loads(path.read_text())


class Numbers:
    """Numbers of several runs, one a run, by a key of two parts."""

    def __init__(self) -> None:
        self._values: dict[tuple[Any, ...], dict[Path, float]] = defaultdict(dict)

    def add(self, run: Path, value: float, *key: Any) -> None:
        """Raises InputError where the run has such a number already, of other weights."""
        if self._values[key].setdefault(run, value) != value:
            raise InputError(f"{run} has two results for {key}; delete those of earlier weights")

    def shown(self, *key: Any, digits: int, scale: float = 1.0) -> str:
        """Mean ± standard error (runs), or nothing where there is none."""
        values = [scale * value for value in self._values[key].values()]
        if not values:
            return ""
        error = f" ± {statistics.stdev(values) / len(values) ** 0.5:,.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):,.{digits}f}{error} ({len(values)})"

    @property
    def known(self) -> list[tuple[Any, ...]]:
        """In the order in which they came."""
        return list(self._values)


def likelihoods(runs: list[Path]) -> Table:
    """Importance-weighted log-likelihoods by noise, and the cap of each."""
    nats, caps = Numbers(), Numbers()
    for run, result in results(runs, "likelihood"):
        protocol = result["protocol"]
        key = protocol["weights"], (protocol.get("noise", "independent"), protocol.get("floor", ""))
        if "iwae_q_hat" in result["values"]:
            nats.add(run, result["values"]["iwae_q_hat"]["value"], *key)
            caps.add(run, result["cap"], *key)

    def cell(*key: Any) -> str:
        return f"{nats.shown(*key, digits=1)}, cap {caps.shown(*key, digits=0)}" if key in nats.known else ""

    rows = [(title, *(cell(weights, noise) for noise in NOISES)) for weights, title in WEIGHTS.items()]
    return Table(head=("nats per image", *NOISES.values()), rows=rows)


def _coverage(runs: list[Path]) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for run, result in results(runs, "uncertainty"):
        if result.get("calibrated"):
            yield run, result["protocol"]["weights"], result


def pixels(runs: list[Path]) -> Table:
    """Pixels inside their intervals: as predicted, calibrated, and the two extreme tenths by predicted sigma."""
    held = Numbers()
    for run, weights, result in _coverage(runs):
        for row, point in enumerate(result["calibrated"]["coverage"]):
            level = point["level"]
            tenths = [tenth["coverage"][row]["value"] for tenth in result["calibrated"]["tenths"]]
            held.add(run, result["coverage"][row]["value"], weights, level, "predicted")
            held.add(run, point["value"], weights, level, "calibrated")
            held.add(run, max(abs(tenth - level) for tenth in tenths), weights, level, "tenths")
    kinds = {"predicted": "as predicted, %", "calibrated": "calibrated, %", "tenths": "farthest tenth, points off"}
    rows = [
        (WEIGHTS[w], f"{level:.0%}", *(held.shown(w, level, kind, digits=2, scale=100) for kind in kinds))
        for w, level in dict.fromkeys(key[:2] for key in held.known)
    ]
    return Table(head=("weights", "asked", *kinds.values()), rows=rows)


def regions(runs: list[Path]) -> Table:
    """Means over regions inside their intervals, by the kind of interval."""
    held, kinds = Numbers(), ("independent", "correlated", "calibrated")
    for run, weights, result in _coverage(runs):
        for region in result.get("regions", ()):
            for kind in kinds:
                for point in region[kind]:
                    held.add(run, point["value"], weights, region["side"], point["level"], kind)
    keys = held.known
    levels = list(dict.fromkeys(key[2] for key in keys))
    rows = []
    for w, side in dict.fromkeys(key[:2] for key in keys):
        title = f"{side} x {side}" if side else "whole image"
        rows.append(
            (
                WEIGHTS[w],
                title,
                *(" / ".join(held.shown(w, side, level, k, digits=1, scale=100) for k in kinds) for level in levels),
            )
        )
    return Table(head=("weights", "means over", *(f"{level:.0%}" for level in levels)), rows=rows)


def completions(runs: list[Path]) -> Table:
    """Error and coverage of hidden pixels by method."""
    found = Numbers()
    for run, result in results(runs, "complete"):
        protocol = result["protocol"]
        kind = f"{protocol['weights']}, {protocol['noise']}, {protocol['floor']}"
        for method, values in result["methods"].items():
            key = protocol["hide"], kind, method
            found.add(run, values["mean_square_error"]["value"], *key, "error")
            found.add(run, values["effective_samples"]["value"], *key, "effective")
            for point in values["coverage"]:
                found.add(run, point["value"], *key, point["level"])
    levels = [0.5, 0.9, 0.99]
    rows = [
        (
            *key,
            found.shown(*key, "error", digits=4),
            *(found.shown(*key, level, digits=0, scale=100) for level in levels),
            found.shown(*key, "effective", digits=1),
        )
        for key in dict.fromkeys(key[:3] for key in found.known)
    ]
    head = ("hidden", "noise", "method", "mean square error", *(f"{level:.0%} hold" for level in levels), "effective z")
    return Table(head=head, rows=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders of different seeds")
    args = parser.parse_args()
    for table in (likelihoods, pixels, regions, completions):
        print(table(args.runs).to_markdown(), end="\n\n")


if __name__ == "__main__":
    command(main)
