"""`python -m tune --config FILE`: a sweep over the trainer's configuration; the same command again continues it."""

from data_shards.io.interruption import one_line_when_interrupted
from data_shards.io.working_folder import end_where_it_is_gone

if __name__ == "__main__":
    one_line_when_interrupted()  # the other imports take seconds
    end_where_it_is_gone()

import argparse
import sys
from pathlib import Path

from data_shards.io.errors import InputError, OneLineParser, command
from data_shards.io.progress import duration
from data_shards.io.regular_files import require_file_place
from data_shards.manifest import Manifest
from trainer.dry_run import estimate
from tune.sweep_config import SweepConfig, read_sweep


def parser() -> OneLineParser:
    """The command line."""
    made = OneLineParser(
        prog="python -m tune",
        description="Trains many configurations, stops unpromising ones early, and writes a report. The same command "
        "again continues an interrupted sweep.",
    )
    made.add_argument("--config", required=True, help="YAML file of the sweep; the project's own are in tune/configs")
    made.add_argument(
        "--address",
        help="a Ray cluster: `auto` for the one this machine belongs to, or its head; without it Ray is started here",
    )
    made.add_argument(
        "--export-best", metavar="FILE", help="write the best configuration as YAML for python -m trainer"
    )
    made.add_argument(
        "--steal-lock", action="store_true", help="take the sweep over from a process that runs it; stop that one first"
    )
    made.add_argument("--dry-run", action="store_true", help="check the sweep and estimate its cost; starts nothing")
    made.add_argument(
        "--processes",
        type=int,
        default=1,
        help="processes that trials share, for --dry-run",
    )
    made.acts_only(lambda args: args.dry_run, "processes", otherwise="is for --dry-run; add it or leave this out")
    made.acts_only(
        lambda args: not args.dry_run, "steal_lock", otherwise="takes nothing over with --dry-run; leave it out"
    )
    return made


def main() -> None:
    """Reads the command line, then runs or estimates the sweep."""
    args = parser().parse_args()
    sweep = read_sweep(args.config)
    if args.export_best:
        require_file_place(Path(args.export_best), "export_best")
        for own in (args.config, sweep.base):
            if Path(own).resolve() == Path(args.export_best).resolve():
                raise InputError(f"{args.export_best} is what the sweep is read from; choose another", "export_best")
    if args.dry_run:
        _estimate(sweep, args.processes)
    else:
        _run(sweep, args)


def _estimate(sweep: SweepConfig, processes: int) -> None:
    """Prints the largest cost of the sweep on that many processes. Raises InputError where something is missing."""
    from tune.checks import check_sweep, require_disk
    from tune.search.trials import number_of_search_trials

    if processes < sweep.workers:
        raise InputError(f"a trial needs {sweep.workers} processes, and there are {processes}", parameter="workers")
    checked = check_sweep(sweep, cluster=True)
    config = sweep.trainer_config("base", 0, {})
    manifest = Manifest.load(config.data.location)
    images = manifest.num_samples(config.data.train_split)
    cost = estimate(config, manifest.image_shape, images, sweep.workers)
    trials, at_once = number_of_search_trials(sweep), processes // sweep.workers
    searched = ", ".join(dimension.field for dimension in sweep.space)
    print(f"sweep    {sweep.folder}: {sweep.search} over {searched}")
    print(f"shards   {config.data.shards}: {images:,} training images")
    print(f"trials   at most {trials:,}, {at_once} at once on {sweep.workers} processes each")
    print(
        f"time     about {duration(cost.seconds * trials / at_once)} at the base's sizes, if no trial is stopped early"
    )
    print(f"disk     {checked.bytes_needed / 1e9:.2g} GB of checkpoints in {sweep.trials_folder}")
    for line in checked.notices:
        print(f"note     {line}")
    require_disk(sweep, checked)


def _run(sweep: SweepConfig, args: argparse.Namespace) -> None:
    # Ray takes seconds to import, and a mistake in the file is reported before.
    from tune.report.ranking import export_best, ranking
    from tune.report.report import write_report
    from tune.sweep import run_sweep

    records, ended = run_sweep(sweep, args.address, steal_lock=args.steal_lock)
    print(f"report: {write_report(sweep, records)}")
    if not ended:
        print("interrupted; the same command continues the sweep", file=sys.stderr)
        sys.exit(130)
    failed = [record for record in records if record.status == "failed"]
    if again := sum(record.again for record in failed):
        print(f"{again} trials failed by faults of machines; the same command tries them again", file=sys.stderr)
        sys.exit(1)
    if len(failed) == len(records):
        print(f"all {len(records)} trials failed; the report says why, the first: {failed[0].reason}", file=sys.stderr)
        sys.exit(1)
    if args.export_best:
        export_best(sweep, ranking(records, sweep.objectives[0]), Path(args.export_best))
        print(f"best configuration: {args.export_best}")


if __name__ == "__main__":
    sys.exit(command(main))
