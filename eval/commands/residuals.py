"""`python -m eval residuals`: how the errors of a run's reconstructions vary together, for correlated noise."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.io.errors import OneLineParser
from data_shards.io.options import add_lock_option, seed
from eval.commands.options import (
    add_mixture_options,
    add_noise_options,
    add_run_options,
    question_of,
    refuse_mixture_of_other_noise,
)
from eval.questions import NOISES, ResidualsQuestion

if TYPE_CHECKING:
    from eval.results import ResidualsResult


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval residuals`."""
    add_run_options(parser, weights_help="whose residuals")
    add_noise_options(parser, NOISES[1:])
    add_mixture_options(parser, "components of the fitted mixture, for --noise correlated-component")
    refuse_mixture_of_other_noise(parser)
    parser.add_argument("--seed", type=seed, default=0, help="seed of the codes")
    add_lock_option(parser, "the result")


def run(args: argparse.Namespace) -> None:
    """Writes RUN/eval/residuals-ADDRESS.json and .safetensors, for --noise of other commands."""
    from eval.residuals.stored import NAME, fit_residuals
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    question = question_of(ResidualsQuestion, args)
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        result = fit_residuals(measured, question, ranks, steal=args.steal_lock)
        if ranks.is_main:
            show(result, measured.result_path(NAME, result.protocol))


def show(result: "ResidualsResult", path: Path) -> None:
    """Prints what was chosen and what it gives."""
    from eval.residuals.fit import MOST_PIXELS

    small = math.prod(result.protocol.image_shape) <= MOST_PIXELS
    for title, tried in (("shrinkage" if small else "factors", result.common), ("strength", result.strengths)):
        for one in tried:
            print(f"{title} {one.value:<8g} {one.gain:10.2f} nats per held-out image over independent pixels")
    count = len(result.images)
    print(f"{count} covariance{'s' if count > 1 else ''} of rank {result.rank}, chosen on held-out images")
    print(f"smallest variance {result.smallest_variance:.3g} of sigma^2 (--floor {result.protocol.floor})")
    print(f"cap of log p(x|z) {result.cap:.1f} nats per image")
    print(f"written to {path}")
