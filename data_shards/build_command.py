"""`python -m data_shards build`: from what a person types to a source and the pixels wanted from it."""

import argparse
import os
from pathlib import Path

from data_shards.build import BuildOptions, build, finished, merge, recipe
from data_shards.errors import InputError
from data_shards.manifest import DEFAULT_WINDOW, FILE, Manifest
from data_shards.pixels import ENCODINGS, Pixels
from data_shards.sources import fashion_mnist
from data_shards.sources.idx import IdxSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("dataset", choices=("mnist", "fashion-mnist"), help="what the source holds")
    parser.add_argument(
        "--source", type=Path, help="folder of the source; Fashion-MNIST is found or fetched without it"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--encoding", choices=ENCODINGS, default="raw", help="how images are kept (default: raw)")
    parser.add_argument(
        "--valid",
        type=int,
        default=5000,
        metavar="N",
        help="last N training images become the split valid (default: 5000)",
    )
    parser.add_argument("--shard-images", type=int, default=1000, metavar="N", help="images a shard (default: 1000)")
    parser.add_argument(
        "--window",
        type=int,
        default=DEFAULT_WINDOW,
        metavar="N",
        help=f"shards a shuffling window (default: {DEFAULT_WINDOW})",
    )
    parser.add_argument(
        "--skip-bad", type=int, default=0, metavar="N", help="leave out up to N unusable images (default: 0)"
    )
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (default: one a core)"
    )
    parser.add_argument("--part", metavar="I/N", help="do the I-th of N parts of the work, I = 0..N-1, as an array job")
    parser.add_argument("--merge", action="store_true", help="after all parts: check them and write the manifest")


def run(args: argparse.Namespace) -> None:
    """Builds, goes on with, or finds finished the shards in --out."""
    part, parts = _part(args.part)
    options = BuildOptions(
        shard_images=args.shard_images,
        window=args.window,
        skip_bad=args.skip_bad,
        processes=args.workers,
        part=part,
        parts=parts,
    )
    pixels = Pixels(channels=1, height=28, width=28, encoding=args.encoding)
    if (made := finished(args.out, recipe(args.dataset, pixels, options))) is None:
        folder = args.source or (fashion_mnist.find_folder() if args.dataset == "fashion-mnist" else None)
        if folder is None:
            raise InputError(f"--source: needed for {args.dataset}; give the folder of its files")
        source = IdxSource(folder, name=args.dataset, num_valid=args.valid)
        made = (merge if args.merge else build)(source, pixels, args.out, options)
    _say(args.out, made, part, parts)


def _part(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    try:
        part, parts = map(int, text.split("/"))
    except ValueError as error:
        raise InputError(f"--part: {text!r} is not of the form I/N, such as 0/8") from error
    return part, parts


def _say(out: Path, made: Manifest | None, part: int, parts: int) -> None:
    if made is None:
        print(f"{out}: part {part} of {parts} is done; `--merge` writes {FILE} when all are")
        return
    counts = ", ".join(f"{split} {made.num_samples(split):,}" for split in made.splits)
    print(f"{out}: {made.name}, {counts}, {len(made.shards)} shards, hash {made.hash[:16]}")
