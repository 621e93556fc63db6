"""`python -m eval statistics`: mean and covariance of a set's features in a file, to compare other sets with."""

import argparse
from pathlib import Path

from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.options import add_lock_option
from eval.commands.options import (
    add_device_option,
    add_extractor_options,
    add_sampling_options,
    add_skip_bad_option,
    chosen_extractor,
    question_of,
    refuse_mixture_of_other_densities,
    refuse_sampling_without_run,
    refuse_seed_without_choice,
)
from eval.image_sets.kinds import KINDS
from trainer.run_folder.latents import WEIGHTS


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval statistics`."""
    parser.add_argument("set", metavar="SET", help=f"{KINDS}")
    parser.add_argument("--out", required=True, help="the file, .npz")
    parser.add_argument("--n", type=int, help="a seeded choice of so many images (default: all; 10000 of a run)")
    add_sampling_options(parser)
    parser.add_argument("--weights", default="final", choices=WEIGHTS, help="which weights of a run")
    refuse_sampling_without_run(parser, lambda args: [args.set])
    refuse_mixture_of_other_densities(parser)
    refuse_seed_without_choice(parser, lambda args: [args.set])
    add_extractor_options(parser)
    add_skip_bad_option(parser)
    add_lock_option(parser, "the file")
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the file. Raises InputError where there is one of anything else."""
    from eval.distance.between_sets import open_side, statistics_of
    from eval.distance.saved_statistics import SavedStatistics, load_statistics, save_statistics, saved_before
    from eval.export.record import require_place
    from eval.image_sets.run_samples import Sampling
    from eval.measured_once import held_result
    from trainer.process_group import process_group

    out = Path(args.out)
    if out.suffix != ".npz":
        raise InputError(f"{out} does not end with .npz", parameter="out")
    require_place(out)
    at_least(2, n=args.n)
    with process_group(args.device, options=vars(args)) as ranks:
        extractor = chosen_extractor(args, ranks.device)
        side = open_side(args.set, extractor, ranks, n=args.n, sampling=question_of(Sampling, args))
        if side.images is None:
            raise InputError(f"{args.set} holds statistics; give images", parameter="set")

        def before() -> SavedStatistics | None:
            found = ranks.agree(lambda: saved_before(out, side.identity, extractor))
            # Fewer images than the set has: some could not be read and were left out.
            known = found is not None and found.n >= side.n - args.skip_bad
            return (found or load_statistics(out, extractor)) if ranks.any(ranks.is_main and known) else None

        question = {"images": side.identity, "extractor": extractor.label}
        with held_result(out, ranks, before, question=question, steal=args.steal_lock) as place:
            if place.found is not None:
                if ranks.is_main:
                    print(f"{out}: {place.found.n:,} images, {extractor.label} (made before)")
                return
            statistics, remarks = statistics_of(side, extractor, ranks, skip_bad=args.skip_bad)

            def write() -> None:
                if place.lease is not None:
                    place.lease.check()
                    save_statistics(out, statistics, extractor)

            ranks.agree(write)
        if ranks.is_main:
            print("\n".join([*remarks, f"{out}: {statistics.n:,} images, {extractor.label}"]))
