"""`python -m eval score`: how likely each image of a set is under a run, as a table."""

import argparse
from pathlib import Path

from data_shards.io.errors import OneLineParser, at_least
from data_shards.io.options import add_lock_option, seed
from eval.commands.options import (
    add_annealing_options,
    add_mixture_options,
    add_run_options,
    add_skip_bad_option,
    refuse_mixture_of_other_densities,
)
from eval.image_sets.kinds import KINDS
from eval.images.densities import BY_OPTION
from eval.questions import LikelihoodQuestion


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval score`."""
    parser.add_argument("set", metavar="SET", help=f"{KINDS}; made into the run's kind of images as its shards were")
    add_run_options(parser)
    parser.add_argument("--out", help="the table, .csv (default: only a summary is printed)")
    parser.add_argument("--against", metavar="SET", help="images of another kind: how well scores tell the two apart")
    parser.add_argument("--n", type=int, help="a seeded choice of so many images of each set (default: all)")
    parser.add_argument(
        "--samples", type=int, default=LikelihoodQuestion.samples, help="importance samples for each image"
    )
    add_annealing_options(parser)
    densities = [name for name in BY_OPTION if name != "transported"]
    parser.add_argument("--density", default="mixture", choices=densities, help="the density of the latents")
    add_mixture_options(parser, "components of the mixture (default: of the one that is fitted)", default=None)
    refuse_mixture_of_other_densities(parser)
    parser.add_argument("--seed", type=seed, default=0, help="seed of the noise and of the choice of images")
    add_skip_bad_option(parser)
    add_lock_option(parser, "the table")
    parser.acts_only(
        lambda args: args.out is not None, "steal_lock", otherwise="nothing is written without --out; leave it out"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the table, and prints what its columns are on average, and the AUROC against the other set."""
    from eval.export.own_images import latent_density, own_images
    from eval.export.score_table import score_table
    from eval.export.scores import ANNEALED, COLUMNS, Scoring, detections
    from eval.image_sets.run_samples import run_folder
    from eval.measurements.annealed import Annealing
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    at_least(1, n=args.n, samples=args.samples, chains=args.chains)
    at_least(0, seed=args.seed, annealing=args.annealing)
    annealing = Annealing(steps=args.annealing, chains=args.chains) if args.annealing else None
    with process_group(args.device, options=vars(args)) as ranks:
        run = load_shared_run(ranks.agree(lambda: run_folder(args.run)), args.weights, ranks)
        density = latent_density(run, args.density, args.mixture, args.covariance, ranks)
        scoring = Scoring(density=density, samples=args.samples, seed=args.seed, annealing=annealing)
        words = [word for word in (args.set, args.against) if word is not None]
        sets = [own_images(run, word, ranks, n=args.n, seed=args.seed) for word in words]
        tables = []
        for word, images, out in zip(words, sets, (args.out, None), strict=False):
            place = Path(out) if out else None
            found = score_table(run, images, scoring, ranks, skip_bad=args.skip_bad, out=place, steal=args.steal_lock)
            tables.append(found.table)
            if not ranks.is_main:
                continue
            means = ", ".join(
                f"{name.replace('_', ' ')} {value:.4g}"
                for name, value in zip((*COLUMNS, *ANNEALED), found.table.nanmean(0).tolist(), strict=False)
            )
            read = int((~found.table[:, 0].isnan()).sum())
            print("\n".join([*found.remarks, f"{word}: {read:,} images, means: {means}; address {found.address}"]))
            if out:
                print(f"{'made before: ' if found.made_before else 'written to '}{out}")
        if ranks.is_main and len(tables) == 2:
            for one in detections(*tables):
                print(f"AUROC by {one.score}: {one.auroc:.4f}")
