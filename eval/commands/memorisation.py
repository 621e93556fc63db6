"""`python -m eval memorisation`: whether samples are nearer to training images than new images are."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.io.errors import OneLineParser
from data_shards.io.options import add_lock_option
from eval.commands.options import add_mixture_options, add_run_options, add_subset_options, question_of
from eval.questions import MemorisationQuestion

if TYPE_CHECKING:
    from eval.results import MemorisationResult


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval memorisation`."""
    add_run_options(parser)
    add_lock_option(parser, "the result")
    add_mixture_options(parser, "components of the fitted mixture to sample from")
    add_subset_options(parser, MemorisationQuestion.images, "number of samples, and of held-out images")
    parser.add_argument(
        "--from",
        dest="source",
        default=MemorisationQuestion.source,
        choices=("q_hat", "transported"),
        help="transported: samples and reconstructions are both transported, see python -m eval transport",
    )


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/[transported-]memorisation-ADDRESS.json, and the images beside it as .safetensors.

    A result by the same protocol is only printed.
    """
    from eval.measurements.memorisation import measure_memorisation, memorisation_path
    from eval.results import stored_at
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    question = question_of(MemorisationQuestion, args)
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        result = measure_memorisation(measured, question, ranks, steal=args.steal_lock)
        if ranks.is_main:
            show(result, stored_at(memorisation_path(measured, result.protocol)))


def show(result: "MemorisationResult", path: Path) -> None:
    """Prints the main numbers of the result."""
    for title, compared in (("pixel distance", result.pixel_distance), ("code distance", result.code_distance)):
        chance = compared.chance_nearer
        print(
            f"by {title}, a sample is nearer to a training image than a held-out one with chance "
            f"{chance.value:.3f} +- {chance.standard_error:.3f}"
        )
    print(f"written to {path}")
