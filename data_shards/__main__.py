"""The commands on shards.

python -m data_shards build {celeba,mnist,fashion-mnist,folder} --source PATH --out SHARDS
python -m data_shards split SHARDS --valid 5%
python -m data_shards {verify,info,simulate} SHARDS
"""

from data_shards.io.interruption import one_line_when_interrupted

if __name__ == "__main__":
    one_line_when_interrupted()  # the other imports take seconds

import signal
import sys

from data_shards.build import command as build_command
from data_shards.build import split
from data_shards.inspect import info, simulate, verify
from data_shards.io.errors import OneLineParser, command

_COMMANDS = {
    "build": (build_command, "make shards from a data set"),
    "split": (split, "take valid or test images out of the training images of finished shards"),
    "verify": (verify, "check shards thoroughly"),
    "info": (info, "print what shards hold and draw a contact sheet"),
    "simulate": (simulate, "walk the order of a data set without images"),
}


def main() -> None:
    """Reads the command line and runs the command."""
    parser = OneLineParser(prog="python -m data_shards", description="Images as tar shards.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` and a batch system stop it as Ctrl-C does
    sys.exit(command(main))
