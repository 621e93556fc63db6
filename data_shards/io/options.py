"""Options that commands of all packages have in common."""

import argparse
import os

from data_shards.io.errors import OneLineParser

LARGEST_SEED = 2**63 - 2
"""Generators take 64 bits, and some draws use the next seed too."""


def seed(text: str) -> int:
    """A whole number from 0 to LARGEST_SEED, for argparse."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not 0 <= number <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{number} is not in 0 to {LARGEST_SEED}")
    return number


def add_workers_option(parser: OneLineParser) -> None:
    """Adds --workers, as `processes`: one for each core that this process may use, where it is not given."""
    parser.add_argument(
        "--workers",
        dest="processes",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes (default: one a core)",
    )


def add_lock_option(parser: OneLineParser, what: str) -> None:
    """Adds --steal-lock. what: that is taken over, such as "the run folder"."""
    parser.add_argument(
        "--steal-lock", action="store_true", help=f"take {what} over from another process that holds it, which stops"
    )
