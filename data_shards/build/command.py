"""Makes shards from a data set. The same command again continues where it was interrupted."""

import argparse
import re
import shlex
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args

from data_shards.build.builder import DEFAULT_SHARD_IMAGES
from data_shards.build.request import SOURCES, BuildEstimate, BuildRequest
from data_shards.io.errors import InputError, OneLineParser
from data_shards.io.options import add_lock_option, add_workers_option
from data_shards.io.progress import duration
from data_shards.manifest import DEFAULT_WINDOW, FILE, Manifest
from data_shards.pixels import Encoding, Fit
from data_shards.sources.source import Crop

_REASONS_SHOWN = 10


def add_arguments(parser: OneLineParser) -> None:
    """The options of the command."""
    parser.add_argument("dataset", choices=SOURCES, help="what the source holds")
    files = "; ".join(f"{name}: {known.files}" for name, known in SOURCES.items())
    parser.add_argument("place", type=Path, nargs="?", metavar="SOURCE", help=files)
    parser.add_argument("--source", type=Path, metavar="SOURCE", help="the same, as an option")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument(
        "--size", type=int, metavar="N", help="side in pixels, antialiased (default: 64; idx files: as they are, 28)"
    )
    parser.add_argument(
        "--crop",
        type=_crop,
        metavar="square|N|none",
        help="what is cut out first: the largest centred square, one of N pixels, or nothing (default: square for "
        "folder, 140 for celeba, else none)",
    )
    parser.add_argument(
        "--fit",
        choices=get_args(Fit),
        help="how whole images of another shape fit, and then nothing is cut out: pad keeps their shape and fills the "
        "rest with the background; stretch squashes them (default with --crop none: pad)",
    )
    parser.add_argument(
        "--background",
        metavar="COLOUR",
        help="what is seen where images are transparent or padded: a name or #rrggbb (default: white)",
    )
    parser.add_argument("--channels", type=int, choices=(1, 3), help="grey or RGB, for folder (default: 3)")
    parser.add_argument(
        "--encoding",
        choices=get_args(Encoding),
        default="raw",
        help="raw: uint8 .npy, the fastest to read; png; jpeg; original: the bytes of the source, cropped and resized "
        "when they are read (default: raw)",
    )
    parser.add_argument(
        "--valid",
        metavar="N|P%",
        help="training images that become the split valid: a number or a percentage; by a hash of each file's name "
        "for folder, the last ones of idx files (default: 5%% where there is no folder with such a name; idx: 5000)",
    )
    parser.add_argument(
        "--test", metavar="N|P%", help="the same for the split test, for folder (default: 5%% where there is none)"
    )
    parser.add_argument(
        "--shard-images",
        type=int,
        default=DEFAULT_SHARD_IMAGES,
        metavar="N",
        help=f"images a shard, on average for folder (default: {DEFAULT_SHARD_IMAGES})",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=DEFAULT_WINDOW,
        metavar="N",
        help=f"shards in which samples are shuffled together (default: {DEFAULT_WINDOW})",
    )
    parser.add_argument(
        "--skip-bad", type=int, default=0, metavar="N", help="leave out up to N unusable images (default: 0)"
    )
    add_workers_option(parser)
    parser.add_argument(
        "--part",
        type=_part,
        default=(0, 1),
        metavar="I/N",
        help="do the I-th of N parts of the work, I = 0..N-1, as an array job",
    )
    parser.add_argument("--merge", action="store_true", help="after all parts: check them and write the manifest")
    parser.add_argument(
        "--update",
        action="store_true",
        help="bring finished shards up to date: images were added, removed or replaced since",
    )
    parser.add_argument(
        "--check-content",
        action="store_true",
        help="compare every image with what the shards were made from, not only those of another size or time",
    )
    add_lock_option(parser, "the folder")
    parser.add_argument(
        "--dry-run", action="store_true", help="check the source and estimate time and disk; write nothing"
    )
    parser.acts_only(
        lambda args: not args.dry_run, "part", "merge", otherwise="--dry-run is of the whole build; leave it out"
    )


def _crop(text: str) -> Crop:
    if text in ("square", "none"):
        return cast(Crop, text)
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not square, a number of pixels, or none")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    try:
        part, parts = map(int, text.split("/"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, such as 0/8") from error
    if parts < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no part at all; of 8 parts the first is 0/8")
    return part, parts


def run(args: argparse.Namespace) -> None:
    """Builds, continues or finds finished the shards in --out."""
    if args.place is not None and args.source is not None:
        raise InputError(f"{args.source} is given beside {args.place}; give one of them", parameter="source")
    args.source = args.source or args.place
    part, parts = args.part
    if args.merge and parts > 1:
        raise InputError("comes after all parts, without --part", parameter="merge")
    arguments = {"part": part, "parts": parts}
    names = {field.name for field in fields(BuildRequest) if field.init} - arguments.keys()
    request = BuildRequest(**arguments, **{name: getattr(args, name) for name in names})
    if args.dry_run:
        _print_estimate(request.estimate(_say), request)
    elif args.merge:
        _print_manifest(request.merge(_say), args.out)
    elif (manifest := request.build(_say)) is not None:
        _print_manifest(manifest, args.out)
    else:
        print(f"{args.out}: part {part} of {parts} is done; `--merge` writes {FILE} when all are")


def _say(line: str) -> None:
    print(line, flush=True)


def _print_manifest(manifest: Manifest, out: Path) -> None:
    for what, images in manifest.converted.items():
        _say(f"{out}: {images:,} images {what}")
    reasons = Counter(re.sub(r"\d+", "N", entry.reason) for entry in manifest.skipped)  # of one kind whatever the size
    for reason, images in reasons.most_common(_REASONS_SHOWN):
        _say(f"{out}: {images:,} unusable images left out: {reason}")
    if len(reasons) > _REASONS_SHOWN:
        words = shlex.join(["python", "-m", "data_shards", "info", str(out)])
        _say(f"{out}: {len(reasons) - _REASONS_SHOWN} more reasons; `{words}` lists all")
    counts = ", ".join(f"{split} {manifest.num_samples(split):,}" for split in manifest.splits)
    skipped = f", {len(manifest.skipped)} unusable left out" if manifest.skipped else ""
    print(f"{out}: {manifest.name}, {counts}{skipped}, {len(manifest.shards)} shards, hash {manifest.hash[:16]}")


def _print_estimate(estimate: BuildEstimate, request: BuildRequest) -> None:
    images = ", ".join(f"{split} {count:,}" for split, count in estimate.images.items())
    needed, free = f"{estimate.bytes / 1e9:.2g} GB", f"{estimate.free_bytes / 1e9:.4g} GB"
    print(f"images   {images}")
    print(f"shards   {estimate.shards} in {request.out}")
    print(f"time     {duration(estimate.seconds)} on {request.processes} cores")
    print(f"disk     {'' if estimate.exact else 'at most about '}{needed}; {free} are free")
    if estimate.exact and estimate.bytes > estimate.free_bytes:
        raise InputError(f"{needed} are needed in {request.out}, {free} are free", parameter="out")
