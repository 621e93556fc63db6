"""`python -m eval reconstruct`: a run's reconstructions of any images, with maps of its uncertainty."""

import argparse
from pathlib import Path

from data_shards.io.errors import OneLineParser, at_least
from data_shards.io.options import add_lock_option, seed
from eval.commands.options import add_run_options, add_skip_bad_option, refuse_seed_without_choice
from eval.image_sets.kinds import KINDS


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval reconstruct`."""
    parser.add_argument("set", metavar="SET", help=f"{KINDS}; made into the run's kind of images as its shards were")
    add_run_options(parser)
    parser.add_argument("--out", required=True, help="folder, made here; one with other files is never touched")
    parser.add_argument("--n", type=int, help="a seeded choice of so many images (default: all)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the choice")
    refuse_seed_without_choice(parser, lambda args: [args.set])
    add_skip_bad_option(parser)
    add_lock_option(parser, "the folder")


def run(args: argparse.Namespace) -> None:
    """Writes OUT with a picture for each image, reconstructions.csv, sigma.safetensors and made.json."""
    from eval.export.own_images import own_images
    from eval.export.reconstructions import write_reconstructions
    from eval.image_sets.run_samples import run_folder
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    at_least(1, n=args.n)
    out = Path(args.out)
    with process_group(args.device, options=vars(args)) as ranks:
        run = load_shared_run(ranks.agree(lambda: run_folder(args.run)), args.weights, ranks)
        images = own_images(run, args.set, ranks, n=args.n, seed=args.seed)
        made = write_reconstructions(run, images, out, ranks, skip_bad=args.skip_bad, steal=args.steal_lock)
        if ranks.is_main:
            print("\n".join(made.remarks), end="\n" if made.remarks else "")
            before = " (made before)" if made.made_before else ""
            print(f"{out}: {made.images:,} images, each with its reconstruction, error and predicted deviation{before}")
