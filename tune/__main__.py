"""`python -m tune --config FILE`: a sweep over the trainer's configuration; the same command again goes on."""

import sys
from pathlib import Path

from data_shards.io.command_line import OneLineParser
from data_shards.io.errors import InputError, command
from tune.sweep_config import read_sweep


def parser() -> OneLineParser:
    """The command line."""
    made = OneLineParser(
        prog="python -m tune",
        description="Trains many configurations, stops the hopeless ones early, and reports. The same command again "
        "goes on where the sweep was interrupted.",
    )
    made.add_argument("--config", required=True, help="YAML file of the sweep; the project's own are in tune/configs")
    made.add_argument(
        "--address", help="a Ray cluster: `auto` for the one this machine belongs to, or its head; none starts Ray here"
    )
    made.add_argument(
        "--export-best", metavar="FILE", help="write the best configuration as YAML for python -m trainer"
    )
    return made


def main() -> None:
    """Reads the command line and runs the sweep."""
    args = parser().parse_args()
    sweep = read_sweep(args.config)
    if args.export_best and not Path(args.export_best).resolve().parent.is_dir():
        raise InputError(f"--export-best: {args.export_best} lies in no folder that is there; make it first")
    # Ray takes seconds to import, and a mistake in the file should be told at once.
    from tune.export import export_best
    from tune.report.ranking import ranking
    from tune.report.report import write_report
    from tune.search.stopping import rungs
    from tune.sweep import run_sweep

    records, ended = run_sweep(sweep, args.address)
    objective = sweep.objectives[0]
    longest = sweep.latest_images()[1]
    print(f"report: {write_report(sweep.folder, records, sweep.space, objective, rungs(sweep), longest)}")
    if not ended:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
    if args.export_best:
        export_best(sweep, ranking(records, objective), Path(args.export_best))
        print(f"best configuration: {args.export_best}")


if __name__ == "__main__":
    sys.exit(command(main))
