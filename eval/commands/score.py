"""`python -m eval score`: how likely each image of a set is under a run, as a table."""

import argparse
from pathlib import Path

from data_shards.io.errors import InputError
from eval.commands.options import add_annealing_options, add_mixture_options, add_run_options, add_skip_bad_option
from eval.image_sets.kinds import KINDS
from eval.images.densities import SPOKEN
from eval.questions import LikelihoodQuestion


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    densities = [name for name in SPOKEN if name != "transported"]
    parser.add_argument("--density", default="mixture", choices=densities, help="the density of the latents")
    add_mixture_options(parser, "components of the mixture (default: of the one that is fitted)", default=None)
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise and of the choice of images")
    add_skip_bad_option(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the table, and prints what its columns are on average, and the AUROC against the other set."""
    from data_shards.io.atomic import write_text
    from eval.export.own_images import log_density, own_images
    from eval.export.scores import ANNEALED, COLUMNS, detections, scores, to_csv
    from eval.image_sets.remarks import remarks_of
    from eval.image_sets.run_samples import run_folder
    from eval.measurements.annealed import Annealing
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    for name, least in (("n", 1), ("samples", 1), ("seed", 0), ("annealing", 0), ("chains", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"{value} is below {least}", parameter=name)
    if args.chains > 1 and not args.annealing:
        raise InputError("are of annealed importance sampling; give --annealing too", parameter="chains")
    annealing = Annealing(steps=args.annealing, chains=args.chains) if args.annealing else None
    out = Path(args.out) if args.out else None
    if out is not None and out.exists() and not out.read_text(errors="replace").startswith(f"image,{COLUMNS[0]},"):
        raise InputError(f"{out} is there, and is no table of scores; choose another name", parameter="out")
    with process_group(args.device, options=vars(args)) as ranks:
        run = load_shared_run(ranks.agree(lambda: run_folder(args.run)), args.weights, ranks)
        prior = log_density(run, args.density, args.mixture, args.covariance, ranks)
        tables = []
        for word in (args.set, args.against):
            if word is None:
                continue
            images = own_images(run, word, ranks, n=args.n, seed=args.seed)
            table = scores(run, images, prior, ranks, samples=args.samples, seed=args.seed, annealing=annealing)
            remarks = remarks_of(images, ranks, skip_bad=args.skip_bad)
            tables.append(table)
            if not ranks.is_main:
                continue
            print("\n".join(remarks), end="\n" if remarks else "")
            means = ", ".join(
                f"{name.replace('_', ' ')} {value:.4g}"
                for name, value in zip((*COLUMNS, *ANNEALED), table.nanmean(0).tolist(), strict=False)
            )
            print(f"{word}: {int((~table[:, 0].isnan()).sum()):,} images, means: {means}")
            if word == args.set and out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                names = images.names or [str(number) for number in range(images.n)]
                write_text(out, to_csv(names, table))
                print(f"written to {out}")
        if ranks.is_main and len(tables) == 2:
            for found in detections(*tables):
                print(f"AUROC by {found.score}: {found.auroc:.4f}")
