"""Images per second of the whole trainer, against a bare loop and on two processes against one.

    python tests/benchmarks/trainer_speed.py [--batch 128] [--rounds 6] [--runs 3]

The trainer streams shards of random pixels, checks the held-out ELBO, logs and writes checkpoints, with the network of
trainer/configs/fashion_mnist.yaml. It is compared with a bare loop over tensors in memory, and, on two processes with a
core each, with itself on one and with a bare loop under DistributedDataParallel. How much two cores can give at all is
shown by two bare loops that share nothing and have half of the batch each. All ways take turns of 50
updates, and start anew in each run; where one core is free only the first two. Each ratio is printed with its range
over the runs. Target: at least 0.95 of the bare loop with one process, and
1.75 times one process with two.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from training_turns import UPDATES, bare, build_shards, configuration, trainer  # noqa: E402
from turns import Turns, take_turns, work_in_turns  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help=argparse.SUPPRESS)  # this and --way: for its own processes
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=128, help="images of an update, over all processes")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each way in a run, after two that warm up")
    parser.add_argument("--runs", type=int, default=3, help="times that all ways are started anew")
    return parser.parse_args()


def report(runs: list[dict[str, list[float]]], batch: int) -> None:
    """runs: seconds of each turn of each way, for each run."""

    def line(what: str, fast: str, slow: str) -> None:
        ratios = sorted(
            statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)) for seconds in runs
        )
        print(f"{what}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")

    rounds = len(runs[0]["one"])
    print(f"batch {batch}; median and range over {len(runs)} runs of the median over {rounds} rounds")
    line("trainer, one process, of the bare loop (target 0.95)", "one", "bare")
    if "two" in runs[0]:
        line("trainer, two processes, times one (target 1.75)", "two", "one")
        line("bare loop, two processes, times one", "two-bare", "bare")
        line("two bare loops that share nothing, times one", "bare-apart", "bare")
        line("trainer, two processes, of the bare loop on two", "two", "two-bare")
    rates = {
        name: UPDATES * batch / statistics.median(value for seconds in runs for value in seconds[name])
        for name in runs[0]
    }
    print("images/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))


def main() -> None:
    args = parse()
    if args.way is not None:
        config = configuration(args.folder / "shards", args.way, args.batch)
        work_in_turns((bare if "bare" in args.way else trainer)(config))
        return
    first, *others = sorted(os.sched_getaffinity(0))
    runs = []
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            build_shards(Path(folder))
            given = (__file__, Path(folder))
            batch = f"--batch={args.batch}"
            ways = {name: Turns(*given, name, batch, cores=[{first}]) for name in ("bare", "one")}
            for name in ("two", "two-bare")[: 2 * len(others)]:
                ways[name] = Turns(*given, name, batch, cores=[{first}, {others[0]}])
            if others:
                half = f"--batch={args.batch // 2}"
                ways["bare-apart"] = Turns(*given, "bare-apart", half, cores=[{first}, {others[0]}], apart=True)
            runs.append(take_turns(ways, args.rounds))
    report(runs, args.batch)


if __name__ == "__main__":
    main()
