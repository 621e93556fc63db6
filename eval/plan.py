"""python -m eval.plan {mixture}: what comes after training needs, before an hour of a GPU is spent on it.

Prints what is there and estimates of time and disk; what is missing is told in one line, with exit code 2.
"""

import argparse
import shutil
import sys
from pathlib import Path

from data_shards.io.disk import existing_parent
from data_shards.io.errors import InputError, OneLineParser, command
from data_shards.io.progress import duration
from eval.run import MeasuredRun, load_run
from trainer.dry_run import SUSTAINED, forward_operations

# One image through Inception at 299 x 299, the dearest extractor.
_EXTRACTOR_OPERATIONS = 11.4e9
# Iterations of EM, annealed ones included, and k-means before it as as many again.
_ITERATIONS = 120


def _run(args: argparse.Namespace) -> MeasuredRun:
    run = load_run(args.run)
    print(f"run      {run.folder}: {sum(weight.numel() for weight in run.model.parameters()):,} weights")
    print(f"shards   {run.config.data.shards}")
    return run


def _say(seconds: float, needed: float, folder: Path, args: argparse.Namespace) -> None:
    """Prints time and disk. Raises InputError where the disk has too little room."""
    free = shutil.disk_usage(existing_parent(folder)).free
    rate = SUSTAINED[args.device] / 1e9
    print(f"time     about {duration(seconds)} on {args.processes} {args.device} processes at {rate:g} GFLOP/s each")
    print(f"disk     {needed / 1e9:.2g} GB in {folder}; {free / 1e9:.4g} GB are free")
    if needed > free:
        raise InputError(f"{folder}: {needed / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free")


def mixture(args: argparse.Namespace) -> None:
    """Encoding all images and fitting one mixture."""
    run = _run(args)
    images = sum(run.manifest.num_samples(split) for split in ("train", "valid") if split in run.manifest.splits)
    dim = run.model.latent_dim
    print(f"codes    {images:,} of {dim} dimensions")
    fit = 2.0 * images * args.components * dim**2 * _ITERATIONS
    seconds = (images * forward_operations(run.model) / 2 + fit) / (args.processes * SUSTAINED[args.device])
    _say(seconds, images * (8 * dim + 8) + args.components * dim * (dim + 3) * 8, run.folder, args)


def main() -> None:
    """Reads the command line."""
    parser = OneLineParser(prog="python -m eval.plan", description="Checks and estimates what comes after training.")
    commands = parser.add_subparsers(required=True, metavar="STEP", parser_class=OneLineParser)
    for step in (mixture,):
        one = commands.add_parser(step.__name__, help=step.__doc__, description=step.__doc__)
        one.set_defaults(step=step)
        one.add_argument("--processes", type=int, default=1, help="processes of the whole job (default 1)")
        one.add_argument("--device", choices=tuple(SUSTAINED), default="cpu", help="where they run (default cpu)")
        one.add_argument("--run", required=True, help="run folder")
        one.add_argument("--components", type=int, default=500, help="of the mixture (default 500)")
    arguments = parser.parse_args()
    arguments.step(arguments)


if __name__ == "__main__":
    sys.exit(command(main))
