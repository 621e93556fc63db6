"""`python -m eval encode`: the posterior q(z|x) of every image of a split, to which the mixture is fitted."""

import argparse

from data_shards.io.errors import OneLineParser
from data_shards.io.options import add_lock_option
from eval.commands.options import add_run_options


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval encode`."""
    add_run_options(parser, weights_help="which weights encode")
    parser.add_argument(
        "--split",
        nargs="+",
        help="splits to encode, those already done are left alone (default: what the run trains on and holds out)",
    )
    add_lock_option(parser, "the codes")


def run(args: argparse.Namespace) -> None:
    """Writes RUN/latents/SPLIT[-WEIGHTS]."""
    from eval.images.encoding import encode_split, require_splits
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        data = measured.config.data
        splits = args.split or [data.train_split, data.valid_split]
        require_splits(measured, splits)
        for split in splits:
            encoding = encode_split(measured, split, ranks, steal=args.steal_lock)
            if ranks.is_main:
                done = "were encoded before with these weights" if encoding.encoded_before else "encoded"
                print(f"{encoding.folder}: {encoding.images:,} images {done}")
