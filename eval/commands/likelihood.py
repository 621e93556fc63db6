"""`python -m eval likelihood`: how likely held-out images are under a run, with every term and its standard error."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.io.errors import OneLineParser
from data_shards.io.options import add_lock_option
from eval.commands.options import (
    add_annealing_options,
    add_mixture_options,
    add_noise_options,
    add_run_options,
    add_subset_options,
    question_of,
)
from eval.questions import NOISES, LikelihoodQuestion

if TYPE_CHECKING:
    from eval.results import LikelihoodResult


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval likelihood`."""
    add_run_options(parser)
    add_lock_option(parser, "the result")
    add_noise_options(parser, NOISES)
    add_mixture_options(parser, "components of the fitted mixture; 0 for the prior only")
    add_subset_options(parser, LikelihoodQuestion.images, "number of images, evenly spaced over the split")
    parser.add_argument(
        "--samples", type=int, default=LikelihoodQuestion.samples, help="importance samples for each image"
    )
    add_annealing_options(parser)
    parser.acts_only(lambda args: args.mixture != 0, "covariance", otherwise="--mixture 0 is the prior; leave it out")


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/likelihood-ADDRESS.json; a result by the same protocol is only printed."""
    from eval.measurements.likelihood import measure_likelihood
    from eval.results import stored_at
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    question = question_of(LikelihoodQuestion, args)
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        result = measure_likelihood(measured, question, ranks, steal=args.steal_lock)
        if ranks.is_main:
            show(result, stored_at(measured.result_path("likelihood", result.protocol)))


def show(result: "LikelihoodResult", path: Path) -> None:
    """Prints the result as a table."""
    for name, number in result.values.items():
        error = "" if number.standard_error is None else f" +- {number.standard_error:.4g}"
        print(f"{name.replace('_', ' '):28} {number.value:12.4f}{error}  {number.unit}")
    print(f"{'cap of log p(x|z)':28} {result.cap:12.4f}  nats per image, from the smallest variance possible (D3)")
    if result.latent_kl:
        kl = result.latent_kl
        deviation = f"+- {kl.standard_deviation:.4g}  nats, deviation over {kl.runs} runs"
        print(f"{'KL(q_hat || p)':28} {kl.value:12.4f} {deviation}")
    print(f"{'active dimensions':28} {result.active_dimensions:12d}")
    print(f"written to {path}")
