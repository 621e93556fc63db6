"""`python -m eval fid`: the distance between any two sets of images, or of what a run makes from its real images."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.options import add_lock_option
from eval.commands.options import (
    add_extractor_options,
    add_run_options,
    add_sampling_options,
    add_skip_bad_option,
    chosen_extractor,
    chosen_part,
    question_of,
    refuse_sampling_without_run,
    refuse_seed_without_choice,
)
from eval.distance.measures import FURTHER
from eval.image_sets.kinds import KINDS
from eval.images.densities import BY_OPTION, DENSITIES, SOURCES
from eval.questions import DEFAULT_COMPONENTS, IMAGE_FORMATS, DistanceQuestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eval.distance.between_sets import SetsResult
    from eval.results import DistanceResult, Measured


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval fid`."""
    parser.add_argument(
        "sets",
        nargs="*",
        metavar="SET",
        help=f"two sets of images, the second is the reference: {KINDS}, or an .npz of python -m eval statistics or of "
        "clean-fid. Without them --run and --from are needed",
    )
    add_run_options(parser, required=False)
    parser.add_argument(
        "--from",
        dest="source",
        choices=tuple(SOURCES),
        help="; ".join(f"{source.name}: {source.help}" for source in SOURCES.values()).replace("%", "%%"),
    )
    parser.add_argument(
        "--n",
        type=int,
        help="number of images compared: 10000, or 50000 against the training split; of a SET a seeded choice of so "
        "many, by default all",
    )
    parser.add_argument("--split", default="test", help="split of real images they are compared with, all of it")
    add_sampling_options(parser)
    add_extractor_options(parser)
    # argparse formats its texts by %.
    explained = "; ".join(f"{name}: {measure.help}" for name, measure in FURTHER.items()).replace("%", "%%")
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        choices=tuple(FURTHER),
        help=f"{explained}. They keep feature vectors, not only sums",
    )
    parser.add_argument("--save-images", choices=IMAGE_FORMATS, help="also write the images compared, to RUN/samples")
    parser.add_argument("--out", help="folder for the result and the parts of two SETs (default: only printed)")
    add_skip_bad_option(parser)
    add_lock_option(parser, "the result")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--part", metavar="I/N", help="make only part I of N, I from 0 to N - 1, as one job of an array")
    parts.add_argument("--merge", type=int, metavar="N", help="answer from N finished parts")
    parts.add_argument("--missing", type=int, metavar="N", help="print which of N parts are to be made, as 0,2,3")
    parts.add_argument(
        "--dry-run", action="store_true", help="check the run and estimate time and disk; measure nothing"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="processes of the whole job, for --dry-run (default: 1)"
    )
    _refuse_without_effect(parser)


def _refuse_without_effect(parser: OneLineParser) -> None:
    """Has options refused that do not act beside others."""
    parser.acts_only(
        lambda args: bool(args.sets),
        *("density", "temperature", "out", "skip_bad"),
        otherwise="goes with two sets of images, not with --from; leave it out",
    )
    parser.acts_only(
        lambda args: not args.sets,
        *("run", "source", "save_images", "dry_run", "split", "processes"),
        otherwise="goes with --run and --from, not with two sets of images; leave it out",
    )
    refuse_sampling_without_run(parser, lambda args: args.sets or ["run:"])
    parser.acts_only(
        _draws_from_mixture,
        *("mixture", "covariance"),
        otherwise="chooses a mixture, and what is compared is not drawn from one; leave it out",
    )
    parser.acts_only(
        lambda args: args.source != "half",
        "n",
        otherwise="--from half takes half of the split, whatever its size; leave it out",
    )
    refuse_seed_without_choice(parser, lambda args: args.sets, _draws)
    parser.acts_only(lambda args: args.dry_run, "processes", otherwise="is for --dry-run; add it or leave this out")
    parser.acts_only(
        lambda args: args.merge is None,
        "save_images",
        otherwise="a merge has no images; give the option to each part",
    )
    parser.acts_only(
        lambda args: not args.sets or args.out is not None,
        "steal_lock",
        otherwise="nothing is written without --out; leave it out",
    )


def _draws_from_mixture(args: argparse.Namespace) -> bool:
    source = DENSITIES.get(args.source) if not args.sets else DENSITIES[BY_OPTION[args.density]]
    return source is not None and source.of_mixture


def _draws(args: argparse.Namespace) -> bool:
    """Whether something is drawn beside a choice of images of a set."""
    return (not args.sets and args.source != "reconstruction") or any(FURTHER[name].draws for name in args.also)


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/fid-...-ADDRESS.json, or one part of it; what is there already is not made again."""
    at_least(1, merge=args.merge, missing=args.missing, processes=args.processes)
    if args.sets:
        _between_sets(args)
        return
    for name, value in (("run", args.run), ("from", args.source)):
        if value is None:
            raise InputError(f"give two sets of images, or --run and --from; --{name} is missing")
    question = replace(question_of(DistanceQuestion, args), mixture=args.mixture or DEFAULT_COMPONENTS)
    if args.dry_run:
        _estimate(args, question)
    else:
        _of_a_run(args, question)


def _estimate(args: argparse.Namespace, question: DistanceQuestion) -> None:
    from eval.distance.comparison import estimate_cost
    from eval.run import load_run
    from trainer.device import planned_device

    device = planned_device(args.device)
    cost = estimate_cost(load_run(args.run, args.weights), question, device=device, processes=args.processes)
    print("\n".join(cost.lines()))
    cost.require_disk()


def _of_a_run(args: argparse.Namespace, question: DistanceQuestion) -> None:
    from eval.distance.comparison import comparison
    from eval.distance.parts import make_part, merge_parts, part_files
    from eval.results import stored_at
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    with process_group(args.device, options=vars(args)) as ranks:
        run = load_shared_run(args.run, args.weights, ranks)
        compared = replace(comparison(run, question, ranks.device), steal=args.steal_lock)
        if args.missing is not None:
            print(",".join(map(str, part_files(compared).missing(args.missing))))
            return
        if args.part is not None:
            part, parts = chosen_part(args.part)
            made = make_part(compared, part, parts, ranks, save_images=args.save_images)
            then = f"when all {parts} parts are done: the same command with --merge {parts}"
            if ranks.is_main:
                print(
                    f"{made.path}: " + ("finished before" if made.images is None else f"{made.images:,} images; {then}")
                )
            return
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


def _between_sets(args: argparse.Namespace) -> None:
    from eval.distance.between_sets import SetComparison, open_side
    from eval.export.record import require_place
    from eval.image_sets.run_samples import Sampling
    from trainer.process_group import process_group

    if len(args.sets) != 2:
        raise InputError(f"{len(args.sets)} sets of images ({', '.join(args.sets)}); give two")
    at_least(2, n=args.n)
    if args.out is not None:
        require_place(Path(args.out) / "fid.json")
    sampling = question_of(Sampling, args)
    with process_group(args.device, options=vars(args)) as ranks:
        extractor = chosen_extractor(args, ranks.device)
        first, second = args.sets
        compared = SetComparison(
            compared=open_side(first, extractor, ranks, n=args.n, sampling=sampling),
            reference=open_side(
                second, extractor, ranks, n=args.n if second.startswith("run:") else None, sampling=sampling
            ),
            extractor=extractor,
            also=tuple(args.also),
            seed=args.seed,
            out=Path(args.out) if args.out else None,
            skip_bad=args.skip_bad,
            steal=args.steal_lock,
        )
        if args.missing is not None:
            print(",".join(map(str, compared.part_files.missing(args.missing))))
        elif args.part is not None:
            part, parts = chosen_part(args.part)
            path = compared.make_part(part, parts, ranks)
            if ranks.is_main:
                print(f"{path}; when all {parts} parts are done: the same command with --merge {parts}")
        else:
            earlier = compared.earlier(ranks)
            result = earlier or compared.measure(ranks, merged=args.merge)
            if ranks.is_main:
                if earlier is not None:
                    print("measured before:")
                show_sets(result, compared.path)


def show_sets(result: "SetsResult", path: Path | None) -> None:
    """Prints the distance between two sets with what it depends on."""
    _print_values(result.values)
    print(f"{'called':32} {result.label}")
    a, b = result.sets
    reference = f"{result.n_reference:,}" if result.n_reference else "statistics"
    print(f"{'compared':32} {result.n_compared or result.protocol.n:,} images of {a} with {reference} of {b}")
    for remark in result.remarks:
        print(f"{'remark':32} {remark}")
    print(f"{'address':32} {result.protocol.address()}")
    if path is not None:
        print(f"written to {path}")


def show(result: "DistanceResult", path: Path) -> None:
    """Prints the result with what it depends on."""
    protocol = result.protocol
    _print_values(result.values)
    print(f"{'called':32} {result.label}")
    source = " ".join(word for word in (protocol.source, protocol.mixture) if word)
    print(
        f"{'compared':32} {protocol.n:,} images, {source}, with {protocol.n_reference:,} of split "
        f"{protocol.split}; {protocol.weights} weights, seed {protocol.seed}"
    )
    for remark in result.remarks:
        print(f"{'remark':32} {remark}")
    print(f"written to {path}")


def _print_values(values: "Mapping[str, Measured]") -> None:
    for name, number in values.items():
        digits = 4 if abs(number.value) >= 0.1 else 8
        error = "" if number.standard_error is None else f" +- {number.standard_error:.4g}"
        if number.interval_95 is not None:
            low, high = number.interval_95
            error += f" (95 %: {low:.{digits}f} to {high:.{digits}f})"
        print(f"{name.replace('_', ' '):32} {number.value:12.{digits}f}{error}  {number.unit}")
