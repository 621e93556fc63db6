"""`python -m eval complete`: hidden pixels of images predicted from the visible ones, with intervals."""

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
)
from eval.questions import HIDDEN, NOISES, CompletionQuestion

if TYPE_CHECKING:
    from eval.results import CompletionResult


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval complete`."""
    add_run_options(parser)
    add_lock_option(parser, "the result")
    parser.add_argument(
        "--hide",
        default=CompletionQuestion.hide,
        choices=HIDDEN,
        help="a half, a central square of half the sides, or half of the pixels at random, the same of all images",
    )
    add_noise_options(parser, NOISES[1:])
    add_mixture_options(parser, "components of the fitted mixture that latents are drawn from")
    add_subset_options(parser, CompletionQuestion.images, "number of images, evenly spaced over the split")


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/complete-ADDRESS.json, and a picture of the first images beside it."""
    from data_shards.io.atomic import write_bytes
    from eval.measurements.completion import measure_completion
    from eval.report.gallery import completions
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    question = question_of(CompletionQuestion, args)
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        result, pictures = measure_completion(measured, question, ranks, steal=args.steal_lock)
        if ranks.is_main:
            path = measured.result_path("complete", result.protocol)
            if pictures is not None:
                write_bytes(path.with_suffix(".png"), completions(pictures))
            show(result, path)


def show(result: "CompletionResult", path: Path) -> None:
    """Prints error and coverage of each method."""
    for name, method in result.methods.items():
        error = method.mean_square_error
        deviation = "" if error.standard_error is None else f" +- {error.standard_error:.5f}"
        print(f"{name:28} mean square error {error.value:.5f}{deviation}", end="; intervals hold ")
        print(", ".join(f"{point.value:.1%} ({point.level:.0%})" for point in method.coverage))
    picture = path.with_suffix(".png")
    print(f"written to {path}, {picture.name if picture.exists() else 'without its picture: remove it to make both'}")
