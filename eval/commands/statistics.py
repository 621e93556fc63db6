"""`python -m eval statistics`: mean and covariance of a set's features in a file, to compare other sets with."""

import argparse
from pathlib import Path

from data_shards.io.errors import InputError
from eval.commands.options import (
    add_device_option,
    add_extractor_options,
    add_sampling_options,
    add_skip_bad_option,
    chosen_extractor,
    question_of,
    refuse_sampling_without_run,
)
from eval.image_sets.kinds import KINDS
from trainer.run_folder.latents import WEIGHTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval statistics`."""
    parser.add_argument("set", metavar="SET", help=f"{KINDS}")
    parser.add_argument("--out", required=True, help="the file, .npz")
    parser.add_argument("--n", type=int, help="a seeded choice of so many images (default: all; 10000 of a run)")
    add_sampling_options(parser)
    parser.add_argument("--weights", default="final", choices=WEIGHTS, help="which weights of a run")
    add_extractor_options(parser)
    add_skip_bad_option(parser)
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the file. Raises InputError where it would replace a file of another kind."""
    from eval.distance.between_sets import open_side, statistics_of
    from eval.distance.saved_statistics import is_statistics, save_statistics
    from eval.image_sets.run_samples import Sampling
    from trainer.process_group import process_group

    refuse_sampling_without_run(args, [args.set])
    out = Path(args.out)
    if out.suffix != ".npz":
        raise InputError(f"{out} does not end with .npz", parameter="out")
    if out.exists() and not is_statistics(args.out):
        raise InputError(f"{out} is there, and holds no statistics; choose another name", parameter="out")
    with process_group(args.device, options=vars(args)) as ranks:
        extractor = chosen_extractor(args, ranks.device)
        side = open_side(args.set, extractor, ranks, n=args.n, sampling=question_of(Sampling, args))
        if side.images is None:
            raise InputError(f"{args.set} holds statistics; give images", parameter="set")
        statistics, remarks = statistics_of(side, extractor, ranks, skip_bad=args.skip_bad)
        if ranks.is_main:
            out.parent.mkdir(parents=True, exist_ok=True)
            save_statistics(out, statistics, extractor)
            print("\n".join([*remarks, f"{out}: {statistics.n:,} images, {extractor.label}"]))
