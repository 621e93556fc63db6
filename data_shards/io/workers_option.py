"""The option for the number of processes, which the commands on shards have in common."""

import os

from data_shards.io.errors import OneLineParser


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
