"""Images per second of the whole trainer, against a bare loop and on two processes against one.

    python tests/benchmarks/trainer_speed.py [--batch 128] [--rounds 12]

The trainer streams shards of random pixels, checks the held-out ELBO, logs and writes checkpoints, with the network of
trainer/configs/fashion_mnist.yaml. It is compared with a bare loop over tensors in memory, and, on two processes with a
core each, with itself on one and with a bare loop under DistributedDataParallel. All four take turns of 25
updates; where one core is free only the first two. Target: at least 0.95 of the bare loop with one process, and
1.7 times one process with two.
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
    parser.add_argument("--rounds", type=int, default=12, help="turns of each way, after two that warm up")
    return parser.parse_args()


def report(seconds: dict[str, list[float]], batch: int) -> None:
    def line(what: str, fast: str, slow: str) -> None:
        pairs = zip(seconds[slow], seconds[fast], strict=True)
        whole = sum(seconds[slow]) / sum(seconds[fast])
        print(f"{what}: {statistics.median(a / b for a, b in pairs):.3f} (all rounds together {whole:.3f})")

    print(f"batch {batch}, {len(seconds['one'])} rounds; medians over rounds")
    line("trainer, one process, of the bare loop (target 0.95)", "one", "bare")
    if "two" in seconds:
        line("trainer, two processes, times one (target 1.7)", "two", "one")
        line("bare loop, two processes, times one", "two-bare", "bare")
        line("trainer, two processes, of the bare loop on two", "two", "two-bare")
    rates = {name: UPDATES * batch / statistics.median(values) for name, values in seconds.items()}
    print("images/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))


def main() -> None:
    args = parse()
    if args.way is not None:
        config = configuration(args.folder / "shards", args.way, args.batch)
        work_in_turns((bare if "bare" in args.way else trainer)(config))
        return
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        build_shards(Path(folder))
        given = (__file__, Path(folder))
        batch = f"--batch={args.batch}"
        ways = {name: Turns(*given, name, batch, cores=[{first}]) for name in ("bare", "one")}
        for name in ("two", "two-bare")[: 2 * len(others)]:
            ways[name] = Turns(*given, name, batch, cores=[{first}, {others[0]}])
        report(take_turns(ways, args.rounds), args.batch)


if __name__ == "__main__":
    main()
