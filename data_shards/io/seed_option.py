"""The seed that options take, which all packages have in common."""

import argparse

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
