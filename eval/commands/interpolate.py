"""`python -m eval interpolate`: walks between latents of a run, or between the codes of your own images."""

import argparse
from pathlib import Path

from data_shards.io.errors import InputError, OneLineParser
from data_shards.io.options import add_lock_option
from eval.commands.options import (
    add_animation_option,
    add_run_options,
    add_sampling_options,
    question_of,
    refuse_mixture_of_other_densities,
)
from eval.image_sets.kinds import KINDS


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval interpolate`."""
    add_run_options(parser, weights_help="which weights generate")
    parser.add_argument("--out", required=True, help="folder, made here; one with other files is never touched")
    parser.add_argument("--rows", type=int, default=8, help="number of walks (default: 8)")
    parser.add_argument("--steps", type=int, default=16, help="images of a walk, at least 2 (default: 16)")
    parser.add_argument("--between", metavar="SET", help=f"walk between images of your own: {KINDS}")
    add_sampling_options(parser)
    parser.acts_only(
        lambda args: args.between is None,
        *("density", "mixture", "covariance", "temperature"),
        otherwise="is of ends that are drawn, and --between gives images; leave it out",
    )
    refuse_mixture_of_other_densities(parser)
    add_animation_option(parser)
    add_lock_option(parser, "the folder")


def run(args: argparse.Namespace) -> None:
    """Writes OUT with walk.png, walk.gif or walk.mp4, latents.safetensors and made.json."""
    from eval.export.animation import require
    from eval.export.own_images import own_images
    from eval.export.walks import codes_of, interpolation, require_size, sampled_ends, write_walk
    from eval.image_sets.remarks import remarks_of
    from eval.image_sets.run_samples import Sampling, drawn_from, run_folder
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    require_size(args.rows, args.steps)
    require(args.animation)
    sampling, out = question_of(Sampling, args), Path(args.out)
    with process_group(args.device, options=vars(args)) as ranks:
        run = load_shared_run(ranks.agree(lambda: run_folder(args.run)), args.weights, ranks)
        if args.between:
            try:
                images = own_images(run, args.between, ranks, n=2 * args.rows, seed=args.seed)
            except InputError as error:
                raise InputError(error.named(None), "rows" if error.parameter == "n" else error.parameter) from error
            ends, identity, drawn = codes_of(run, images), dict(images.identity), None
            remarks = remarks_of(images, ranks, skip_bad=0)
        else:
            (ends, identity), drawn, remarks = sampled_ends(run, sampling, 2 * args.rows), drawn_from(run, sampling), []
        walk = interpolation(ends, steps=args.steps, identity=identity)
        made = write_walk(run, walk, drawn, out, ranks, animation=args.animation, steal=args.steal_lock)
        if ranks.is_main:
            print("\n".join(remarks), end="\n" if remarks else "")
            print(f"{out}: {args.rows} walks of {args.steps} images{'' if made else ' (made before)'}")
