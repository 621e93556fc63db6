"""python -m eval.plan {mixture,reproduce}: what comes after training needs, before an hour of a GPU is spent on it.

Prints what is there and estimates of time and disk; what is missing is told in one line, with exit code 2.
"""

import argparse
import shutil
import sys
from pathlib import Path

from data_shards.io.disk import existing_parent
from data_shards.io.errors import InputError, OneLineParser, command
from data_shards.io.progress import duration
from data_shards.manifest import FILE, Manifest
from data_shards.sources.celeba import CelebASource
from eval.paper.jobs import TARGETS, jobs, resolved
from eval.paper.plan import Plan, read_plan
from eval.printed_results import DATASETS
from eval.run import MeasuredRun, load_run
from trainer.dry_run import SUSTAINED, estimate, forward_operations

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


def reproduce(args: argparse.Namespace) -> None:
    """Every training of the plan, and what is measured of it."""
    plan = read_plan(args.dataset, args.plan)
    shape, images = _data(plan, args.source)
    wanted = jobs(plan, TARGETS)
    costs = [estimate(resolved(plan, job.training), shape, images, 1) for job in wanted]
    print(f"jobs     {len(wanted)} trainings, {sum(len(job.asks) for job in wanted)} measurements of them")
    print(f"images   {sum(sum(cost.stage_images) for cost in costs):,} in all trainings together")
    trained = sum(sum(cost.stage_images) * cost.operations for cost in costs)
    measured = sum(len(job.asks) for job in wanted) * plan.measure.distance_images * _EXTRACTOR_OPERATIONS
    seconds = (trained + measured) / (args.processes * SUSTAINED[args.device])
    _say(seconds, sum(cost.checkpoint_bytes for cost in costs), Path(args.runs), args)


def _data(plan: Plan, source: str) -> tuple[tuple[int, int, int], int]:
    """Shape and number of training images: of the shards, or of CelebA's folder where there are none yet."""
    if (Path(plan.shards) / FILE).exists():
        manifest = Manifest.load(plan.shards)
        return manifest.image_shape, manifest.num_samples("train")
    if plan.dataset != "celeba" or not source:
        raise InputError(f"{plan.shards}: no shards there; build them with `python -m data_shards build`")
    return (3, 64, 64), len(CelebASource(Path(source)).keys["train"])


def main() -> None:
    """Reads the command line."""
    parser = OneLineParser(prog="python -m eval.plan", description="Checks and estimates what comes after training.")
    commands = parser.add_subparsers(required=True, metavar="STEP", parser_class=OneLineParser)
    for step in (mixture, reproduce):
        one = commands.add_parser(step.__name__, help=step.__doc__, description=step.__doc__)
        one.set_defaults(step=step)
        one.add_argument("--processes", type=int, default=1, help="processes of the whole job (default 1)")
        one.add_argument("--device", choices=tuple(SUSTAINED), default="cpu", help="where they run (default cpu)")
        if step is reproduce:
            one.add_argument("--dataset", choices=tuple(DATASETS), default="celeba", help="data set (default celeba)")
            one.add_argument("--plan", help="YAML file (default: the project's own)")
            one.add_argument("--runs", default="runs/reproduction/celeba", help="folder of the run folders")
            one.add_argument("--source", default="", help="CelebA's folder, where the shards are not built yet")
        else:
            one.add_argument("--run", required=True, help="run folder")
            one.add_argument("--components", type=int, default=500, help="of the mixture (default 500)")
    arguments = parser.parse_args()
    arguments.step(arguments)


if __name__ == "__main__":
    sys.exit(command(main))
