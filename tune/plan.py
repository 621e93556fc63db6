"""python -m tune.plan --config FILE: checks a sweep and says what it costs at the most; starts nothing."""

import sys

from data_shards.io.command_line import OneLineParser
from data_shards.io.errors import InputError, command
from data_shards.io.progress import duration
from data_shards.manifest import Manifest
from trainer.plan import estimate
from tune.search.trials import drawn_ahead, repeated
from tune.sweep_config import read_sweep


def main() -> None:
    """Reads the command line and prints the plan. Raises InputError where something is missing."""
    parser = OneLineParser(prog="python -m tune.plan", description="Checks and estimates a sweep.")
    parser.add_argument("--config", required=True, help="YAML file of the sweep")
    parser.add_argument("--processes", type=int, default=1, help="processes that trials share (default 1)")
    args = parser.parse_args()
    sweep = read_sweep(args.config)
    config = sweep.trainer_config("base", 0, {})
    manifest = Manifest.load(config.data.shards)
    images = manifest.num_samples(config.data.train_split)
    cost = estimate(config, manifest.image_shape, images, sweep.workers)
    trials = len(repeated("search", drawn_ahead(sweep), sweep.seeds))
    at_once = max(1, args.processes // sweep.workers)
    if args.processes < sweep.workers:
        raise InputError(f"workers: a trial takes {sweep.workers} processes, and there are {args.processes}")
    searched = ", ".join(dimension.field for dimension in sweep.space)
    print(f"sweep    {sweep.folder}: {sweep.search} over {searched}")
    print(f"shards   {config.data.shards}: {images:,} training images")
    print(f"trials   at most {trials}, {at_once} at once on {sweep.workers} processes each")
    print(f"time     about {duration(cost.seconds * trials / at_once)} were none stopped early, at the base's sizes")
    print(f"disk     {cost.checkpoint_bytes * trials / 1e9:.2g} GB of checkpoints in {sweep.trials_folder}")


if __name__ == "__main__":
    sys.exit(command(main))
