"""`python -m eval fid`: the distance of samples, reconstructions or real images from the real images of a split."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.io.errors import InputError
from eval.commands.options import add_lock_option, add_mixture_options, add_run_options, chosen_part, question_of
from eval.distance.measures import FURTHER
from eval.images.densities import SOURCES
from eval.questions import IMAGE_FORMATS, INCEPTION_MODES, DistanceQuestion

if TYPE_CHECKING:
    from eval.results import DistanceResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval fid`."""
    add_run_options(parser)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        choices=tuple(SOURCES),
        help="; ".join(f"{source.name}: {source.help}" for source in SOURCES.values()),
    )
    parser.add_argument("--n", type=int, help="number of images compared; 10000, or 50000 against split train")
    parser.add_argument("--split", default="test", help="split of real images they are compared with, all of it")
    add_mixture_options(parser, "components of the fitted mixture, for q_hat and transported")
    parser.add_argument(
        "--extractor",
        default="efficientnet-lite0",
        help="efficientnet-lite0, inception, a TorchScript file, or MODULE:FUNCTION, which is called with a device and "
        "returns a network; the last two are given (B, 3, size, size) float pixels in 0 to 255",
    )
    parser.add_argument(
        "--extractor-size",
        type=int,
        default=0,
        help="input size in pixels; 64 for efficientnet-lite0, 224 for your own",
    )
    parser.add_argument(
        "--extractor-mode", default="clean", choices=INCEPTION_MODES, help="clean-fid's mode, for inception"
    )
    parser.add_argument(
        "--extractor-weights", default="", help="weight file for inception; downloaded once where none is given"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples; image i is a function of (seed, i)")
    explained = "; ".join(f"{name}: {measure.help}" for name, measure in FURTHER.items())
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        choices=tuple(FURTHER),
        help=f"{explained}. They keep feature vectors, not only sums",
    )
    parser.add_argument("--save-images", choices=IMAGE_FORMATS, help="also write the images compared, to RUN/samples")
    add_lock_option(parser)
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--part", metavar="I/N", help="make only part I of N, I from 0 to N - 1, as one job of an array")
    parts.add_argument("--merge", type=int, metavar="N", help="answer from N finished parts")
    parts.add_argument("--missing", type=int, metavar="N", help="print which of N parts are to be made, as 0,2,3")
    parts.add_argument(
        "--dry-run", action="store_true", help="check the run and estimate time and disk; measure nothing"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="processes of the whole job, for --dry-run (default 1)"
    )


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/fid-...-ADDRESS.json, or one part of it; what is there already is not made again."""
    from eval.distance.comparison import comparison, estimate_cost
    from eval.distance.parts import make_part, merge_parts, missing_parts
    from eval.results import stored_at
    from eval.run import load_run, load_shared_run
    from trainer.device import planned_device
    from trainer.process_group import process_group

    question = question_of(DistanceQuestion, args)
    _check_parts(args)
    if args.dry_run:
        device = planned_device(args.device)
        cost = estimate_cost(load_run(args.run, args.weights), question, device=device, processes=args.processes)
        print("\n".join(cost.lines()))
        cost.require_disk()
        return
    with process_group(args.device, options=vars(args)) as ranks:
        compared = replace(
            comparison(load_shared_run(args.run, args.weights, ranks), question, ranks.device), steal=args.steal_lock
        )
        if args.missing is not None:
            print(",".join(str(part) for part in missing_parts(compared, args.missing)))
        elif args.part is not None:
            part, parts = chosen_part(args.part)
            made = make_part(compared, part, parts, ranks, save_images=args.save_images)
            if ranks.is_main and made.images is None:
                print(f"{made.path}: finished before")
            elif ranks.is_main:
                print(
                    f"{made.path}: {made.images:,} images; when all {parts} parts are done: the same command with "
                    f"--merge {parts}"
                )
        else:
            earlier = compared.earlier(ranks, save_images=args.save_images)
            if earlier is not None:
                result = earlier
            elif args.merge is not None:
                result = merge_parts(compared, args.merge, ranks)
            else:
                result = compared.measure(ranks, save_images=args.save_images)
            if ranks.is_main:
                if earlier is not None:
                    print("measured before:")
                show(result, stored_at(compared.path))


def _check_parts(args: argparse.Namespace) -> None:
    for name in ("merge", "missing", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"{value} is below 1", parameter=name)
    if args.merge is not None and args.save_images:
        raise InputError("a merge has no images; give the option to each part", parameter="save_images")


def show(result: "DistanceResult", path: Path) -> None:
    """Prints the result with what it depends on."""
    protocol = result.protocol
    for name, number in result.values.items():
        error = "" if number.standard_error is None else f" +- {number.standard_error:.4g}"
        if number.interval_95 is not None:
            error = f" ({number.interval_95[0]:.4f} to {number.interval_95[1]:.4f})"
        print(f"{name.replace('_', ' '):32} {number.value:12.4f}{error}  {number.unit}")
    print(f"{'called':32} {result.label}")
    source = " ".join(word for word in (protocol.source, protocol.mixture) if word)
    print(
        f"{'compared':32} {protocol.n:,} images, {source}, with {protocol.n_reference:,} of split "
        f"{protocol.split}; {protocol.weights} weights, seed {protocol.seed}"
    )
    for remark in result.remarks:
        print(f"{'remark':32} {remark}")
    print(f"written to {path}")
