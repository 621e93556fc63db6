"""Tables of what correlated noise and calibrated intervals do, over runs of several seeds.

    python tests/benchmarks/noise_tables.py --runs runs/demo-0 runs/demo-1 runs/demo-2

Reads what was measured before: `eval likelihood` with each --noise and --floor, `eval uncertainty --noise correlated
--calibrate`, `eval complete`. A number is the mean over the runs, ± its standard error, (runs) behind it. Prints
Markdown; with `--keep results/measured` the tables are shown in RESULTS.md, too.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tables_of_runs import WEIGHTS, Made, Numbers, results, show, table_arguments

from data_shards.io.errors import command
from data_shards.io.tables import Table

NOISES = {
    ("independent", ""): "independent pixels",
    ("correlated", "algorithm1"): "one covariance",
    ("correlated", "none"): "the same, no floor",
    ("correlated-component", "algorithm1"): "one a component",
    ("correlated-component", "none"): "the same, no floor",
}


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


def largest_by_chance(errors: Sequence[float]) -> float:
    """The mean of the largest of |e_i|, e_i independent and normal with deviations `errors`."""
    top, steps = 8 * max(errors), 4000
    grid = ((step + 0.5) * top / steps for step in range(steps))
    below = (math.prod(math.erf(x / error / math.sqrt(2)) for error in errors) for x in grid)
    return sum(1 - one for one in below) * top / steps


def pixels(runs: list[Path]) -> Table:
    """Pixels inside their intervals: as predicted, calibrated, and in the farthest tenth by predicted sigma.

    Beside it: how far the farthest of the tenths would be by chance alone if each interval held what is asked, and how
    many tenths are farther off than twice their standard error, of which chance makes 0.46.
    """
    held = Numbers()
    for run, weights, result in _coverage(runs):
        for row, point in enumerate(result["calibrated"]["coverage"]):
            level = point["level"]
            tenths = [tenth["coverage"][row] for tenth in result["calibrated"]["tenths"]]
            off = [abs(tenth["value"] - level) for tenth in tenths]
            held.add(run, result["coverage"][row]["value"], weights, level, "predicted")
            held.add(run, point["value"], weights, level, "calibrated")
            held.add(run, max(off), weights, level, "tenths")
            errors = [tenth.get("standard_error") for tenth in tenths]
            if None not in errors:
                held.add(run, largest_by_chance(errors), weights, level, "chance")
                beyond = sum(one > 2 * error for one, error in zip(off, errors, strict=True))
                held.add(run, beyond / 100, weights, level, "beyond")
    kinds = {
        "predicted": "as predicted, %",
        "calibrated": "calibrated, %",
        "tenths": "farthest tenth, points off",
        "chance": "the same by chance alone",
        "beyond": "tenths beyond 2 errors",
    }
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


NOISE = "--noise {correlated,correlated-component} --floor {algorithm1,none}"


def main() -> None:
    args = table_arguments(__doc__.splitlines()[0]).parse_args()
    made = [
        Made(
            name="noise-likelihoods",
            title="Correlated noise: likelihoods",
            text=(
                "Importance-weighted with 20 samples on 500 test images, latents from the mixture of 32, and the cap "
                "of log p(x|z); the covariances are fitted in closed form.",
            ),
            table=likelihoods(args.runs),
            commands=(
                f"python -m eval residuals --run RUN --weights {{stage1,final}} {NOISE}",
                f"python -m eval likelihood --run RUN --weights {{stage1,final}} {NOISE}",
            ),
        ),
        Made(
            name="intervals-of-pixels",
            title="Intervals of pixels, calibrated on held-out images",
            text=(
                "Pixels of 10,000 test images inside their intervals, calibrated on the 5,000 images of the training's "
                "held-out split, and how far the farthest of the ten tenths by predicted sigma is from what is asked. "
                "By chance alone: the mean of the largest of ten normal deviations with the tenths' standard errors, "
                "over images of both splits. Of ten tenths, 0.46 lie beyond two errors by chance.",
            ),
            table=pixels(args.runs),
            commands=("python -m eval uncertainty --run RUN --noise correlated --calibrate --images 10000",),
        ),
        Made(
            name="intervals-of-regions",
            title="Intervals of means over regions",
            text=(
                "Means over regions of 10,000 test images inside their intervals, in percent: independent pixels / "
                "correlated noise / correlated and calibrated on held-out images.",
            ),
            table=regions(args.runs),
            commands=("python -m eval uncertainty --run RUN --noise correlated --calibrate --images 10000",),
        ),
        Made(
            name="hidden-pixels",
            title="Hidden pixels told from the visible ones",
            text=("100 test images; hidden pixels that the 50, 90 and 99 % intervals hold, in percent.",),
            table=completions(args.runs),
            commands=("python -m eval complete --run RUN --hide {right,square,random}",),
        ),
    ]
    show(made, args, "noise_tables.py")


if __name__ == "__main__":
    command(main)
