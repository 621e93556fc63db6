"""`python -m eval traverse`: each of a run's most active latents moved through its range."""

import argparse
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError, OneLineParser
from data_shards.io.options import add_lock_option, seed
from eval.commands.options import add_animation_option, add_run_options
from eval.image_sets.kinds import KINDS


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval traverse`."""
    add_run_options(parser, weights_help="which weights generate")
    parser.add_argument("--out", required=True, help="folder, made here; one with other files is never touched")
    parser.add_argument("--rows", type=int, default=8, help="number of latents, the most active first (default: 8)")
    parser.add_argument("--steps", type=int, default=15, help="images of a walk, at least 2 (default: 15)")
    parser.add_argument(
        "--around", metavar="SET", help=f"an image of your own, of which the other latents are: {KINDS}"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the choice of the image")
    parser.acts_only(
        lambda args: args.around is not None,
        "seed",
        otherwise="chooses an image of --around; give that too, or leave it out",
    )
    add_animation_option(parser)
    add_lock_option(parser, "the folder")


def run(args: argparse.Namespace) -> None:
    """Writes OUT with walk.png, walk.gif or walk.mp4, latents.safetensors and made.json."""
    from eval.export.animation import require
    from eval.export.own_images import own_images
    from eval.export.walks import codes_of, require_size, traversal, typical_codes, write_walk
    from eval.image_sets.remarks import remarks_of
    from eval.image_sets.run_samples import run_folder
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    require_size(args.rows, args.steps)
    require(args.animation)
    out = Path(args.out)
    with process_group(args.device, options=vars(args)) as ranks:
        run = load_shared_run(ranks.agree(lambda: run_folder(args.run)), args.weights, ranks)
        if args.rows > run.model.latent_dim:
            raise InputError(f"{args.rows}, but there are {run.model.latent_dim} latents", parameter="rows")
        codes, split = ranks.agree(lambda: typical_codes(run))
        identity: dict[str, Any] = {"codes": split}
        centre, remarks = codes[0], []
        if args.around:
            images = own_images(run, args.around, ranks, n=1, seed=args.seed)
            centre = codes_of(run, images)[0]
            identity["around"] = dict(images.identity)
            remarks = remarks_of(images, ranks, skip_bad=0)
        walk = traversal(codes, centre, rows=args.rows, steps=args.steps, identity=identity)
        made = write_walk(run, walk, None, out, ranks, animation=args.animation, steal=args.steal_lock)
        if ranks.is_main:
            shown = ", ".join(map(str, walk.identity["dimensions"]))
            print("\n".join(remarks), end="\n" if remarks else "")
            print(f"{out}: latents {shown}, {args.steps} images each{'' if made else ' (made before)'}")
