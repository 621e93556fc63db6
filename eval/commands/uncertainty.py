"""`python -m eval uncertainty`: whether a run's predicted variance says how far its reconstructions are off."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.io.errors import OneLineParser
from data_shards.io.options import add_lock_option
from eval.commands.options import (
    add_mixture_options,
    add_noise_options,
    add_run_options,
    add_subset_options,
    question_of,
    refuse_mixture_of_other_noise,
)
from eval.questions import NOISES, UncertaintyQuestion

if TYPE_CHECKING:
    from eval.results import UncertaintyResult


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval uncertainty`."""
    add_run_options(parser)
    add_lock_option(parser, "the result")
    add_noise_options(parser, NOISES)
    add_mixture_options(parser, "components of the fitted mixture, for --noise correlated-component")
    refuse_mixture_of_other_noise(parser)
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="calibrate intervals on the training's held-out split, and measure how many pixels they hold",
    )
    add_subset_options(parser, UncertaintyQuestion.images, "number of images, evenly spaced over the split")


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/uncertainty-ADDRESS.json; a result by the same protocol is only printed."""
    from eval.measurements.uncertainty import measure_uncertainty
    from eval.results import stored_at
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    question = question_of(UncertaintyQuestion, args)
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        result = measure_uncertainty(measured, question, ranks, steal=args.steal_lock)
        if ranks.is_main:
            show(result, stored_at(measured.result_path("uncertainty", result.protocol)))


def show(result: "UncertaintyResult", path: Path) -> None:
    """Prints the main numbers of the result."""
    from eval.measurements.conformal import scores_needed

    for number in result.coverage:
        print(f"{number.level:6.0%} intervals hold {number.value:.1%} of the pixels")
    area, chance = result.sparsification.area, result.sparsification.area_of_chance
    print(f"sparsification area {area:.4f} (0 is a perfect order, {chance:.4f} an order by chance)")
    print(f"rank correlation of variance and squared error {result.rank_correlation_over_pixels:.4f}")
    print(f"gain over the best single variance {result.log_likelihood_gain:z.2f} nats per image")
    if result.calibrated is not None:
        print(f"calibrated on {result.calibrated.images:,} images of split {result.calibrated.split}:")
        for row, number in enumerate(result.calibrated.coverage):
            tenths = [tenth.coverage[row] for tenth in result.calibrated.tenths]
            held = [tenth.value for tenth in tenths]
            errors = [tenth.standard_error for tenth in tenths if tenth.standard_error is not None]
            print(
                f"{number.level:6.0%} intervals hold {number.value:.2%} of the pixels, "
                f"{min(held):.2%} to {max(held):.2%} in the tenths by predicted sigma"
                + (f" (standard errors up to {max(errors):.2%})" if errors else "")
            )
        calibrated = {number.level for number in result.calibrated.coverage}
        for level in (number.level for number in result.coverage if number.level not in calibrated):
            print(f"{level:6.0%} intervals cannot be promised by so few images; {scores_needed(level)} could")
    for region in result.regions:
        print(f"means over {f'{region.side} x {region.side} pixels' if region.side else 'the whole image'}:")
        kinds = {"independent": region.independent, "correlated": region.correlated, "calibrated": region.calibrated}
        for name, points in kinds.items():
            if points:
                print(f"  {name:12}" + ", ".join(f"{point.value:.1%} ({point.level:.0%})" for point in points))
    print(f"written to {path}")
