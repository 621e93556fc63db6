"""Makes shards from a data set. The same command again goes on where it was interrupted."""

import argparse
import os
from pathlib import Path

from data_shards.build.build_plan import show_plan
from data_shards.build.builder import BuildOptions, build, finished, merge, recipe
from data_shards.io.errors import InputError
from data_shards.manifest import DEFAULT_WINDOW, FILE, Manifest
from data_shards.pixels import ENCODINGS, Pixels
from data_shards.sources import fashion_mnist
from data_shards.sources.celeba import CelebASource
from data_shards.sources.folder import FolderSource
from data_shards.sources.idx import IdxSource
from data_shards.sources.sample import Source

DATASETS = ("celeba", "mnist", "fashion-mnist", "folder")
_IDX = ("mnist", "fashion-mnist")
_CROP_OF_CELEBA = 140
_VALID_OF_IDX = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("dataset", choices=DATASETS, help="what the source holds")
    parser.add_argument(
        "--source",
        type=Path,
        help="celeba: folder with img_align_celeba/ or img_align_celeba.zip, list_eval_partition.txt and perhaps "
        "list_attr_celeba.txt; mnist, fashion-mnist: folder of the idx files (Fashion-MNIST is found or fetched); "
        "folder: any folder of images, with train/, valid/, test/ in it or not",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument(
        "--size", type=int, metavar="N", help="side in pixels, antialiased (default: 64; idx files: as they are, 28)"
    )
    parser.add_argument(
        "--crop", metavar="N|none", help="side of the centred square cut out first (default: 140 for celeba, else none)"
    )
    parser.add_argument("--channels", type=int, choices=(1, 3), help="grey or RGB, for folder (default: 3)")
    parser.add_argument(
        "--encoding",
        choices=ENCODINGS,
        default="raw",
        help="raw: uint8 .npy, the fastest to read; png; jpeg; original: the bytes of the source, cropped and resized "
        "when they are read (default: raw)",
    )
    parser.add_argument(
        "--valid",
        type=int,
        metavar="N",
        help="the last N training images become the split valid (default: 5000 for idx files, 0 for folder)",
    )
    parser.add_argument("--shard-images", type=int, default=1000, metavar="N", help="images a shard (default: 1000)")
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
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (default: one a core)"
    )
    parser.add_argument("--part", metavar="I/N", help="do the I-th of N parts of the work, I = 0..N-1, as an array job")
    parser.add_argument("--merge", action="store_true", help="after all parts: check them and write the manifest")
    parser.add_argument(
        "--dry-run", action="store_true", help="check the source and estimate time and disk; write nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Builds, goes on with, or finds finished the shards in --out."""
    if args.part and args.merge:
        raise InputError("--merge: comes after all parts, without --part")
    part, parts = _part(args.part)
    options = BuildOptions(
        num_valid=_num_valid(args),
        shard_images=args.shard_images,
        window=args.window,
        skip_bad=args.skip_bad,
        processes=args.workers,
        part=part,
        parts=parts,
    )
    pixels = _pixels(args)
    if args.dry_run:
        show_plan(_source(args, options), pixels, args.out, options)
        return
    if (made := finished(args.out, recipe(args.dataset, pixels, options))) is None:
        made = (merge if args.merge else build)(_source(args, options), pixels, args.out, options)
    _say(args.out, made, part, parts)


def _part(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    try:
        part, parts = map(int, text.split("/"))
    except ValueError as error:
        raise InputError(f"--part: {text!r} is not of the form I/N, such as 0/8") from error
    return part, parts


def _num_valid(args: argparse.Namespace) -> int | None:
    if args.dataset == "celeba":
        if args.valid is not None:
            raise InputError("--valid: celeba has its official splits; leave the option out")
        return None
    if args.valid is None:
        return _VALID_OF_IDX if args.dataset in _IDX else 0
    if args.valid < 0:
        raise InputError(f"--valid: {args.valid} is not possible; use 0 or more")
    return int(args.valid)


def _pixels(args: argparse.Namespace) -> Pixels:
    idx = args.dataset in _IDX
    if args.channels is not None and args.dataset != "folder":
        raise InputError(f"--channels: {args.dataset} is {'grey' if idx else 'RGB'}; leave the option out")
    if idx and args.encoding == "original":
        raise InputError("--encoding: idx files hold no encoded images; use raw, png or jpeg")
    size = args.size if args.size is not None else 28 if idx else 64
    return Pixels(
        channels=1 if idx else args.channels or 3,
        height=size,
        width=size,
        crop=_crop(args.crop, _CROP_OF_CELEBA if args.dataset == "celeba" else None),
        resize=args.size is not None or not idx,
        encoding=args.encoding,
    )


def _crop(text: str | None, default: int | None) -> int | None:
    if text is None:
        return default
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--crop: {text!r} is neither a number of pixels nor none")
    return int(text)


def _source(args: argparse.Namespace, options: BuildOptions) -> Source:
    folder: Path | None = args.source
    if folder is None and args.dataset == "fashion-mnist":
        folder = fashion_mnist.find_folder()
    if folder is None:
        raise InputError(f"--source: needed for {args.dataset}; give the folder of its files")
    if not folder.is_dir():
        raise InputError(f"--source: no folder {folder}; give the folder of the files of {args.dataset}")
    if args.dataset == "celeba":
        return CelebASource(folder)
    if args.dataset == "folder":
        return FolderSource(folder, num_valid=options.num_valid or 0)
    return IdxSource(folder, name=args.dataset, num_valid=options.num_valid or 0)


def _say(out: Path, made: Manifest | None, part: int, parts: int) -> None:
    if made is None:
        print(f"{out}: part {part} of {parts} is done; `--merge` writes {FILE} when all are")
        return
    counts = ", ".join(f"{split} {made.num_samples(split):,}" for split in made.splits)
    skipped = f", {len(made.skipped)} unusable left out" if made.skipped else ""
    print(f"{out}: {made.name}, {counts}{skipped}, {len(made.shards)} shards, hash {made.hash[:16]}")
