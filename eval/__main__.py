"""python -m eval COMMAND --run RUN: measures a trained run; `python -m eval COMMAND --help` lists the options."""

import importlib
import sys

from data_shards.io.errors import OneLineParser
from trainer.group_command import group_command

# Each is a module eval/commands/NAME.py with add_arguments(parser) and run(arguments).
COMMANDS = {
    "encode": "posterior means and deviations of all images, for the mixture",
    "transport": "maps that transport samples to the distribution of real images, for fid --from transported",
    "fid": "Frechet distance between any two sets of images, or of a run's samples to real images",
    "statistics": "mean and covariance of a set's features in a file, for fid",
    "likelihood": "ELBO, importance-weighted likelihood, bits per dimension, KL(q_hat || p)",
    "uncertainty": "whether the predicted variance says how far reconstructions are off",
    "memorisation": "whether samples are nearer to training images than new images are",
    "report": "one self-contained page with everything measured so far",
    "reproduce": "the paper's tables and figures on one data set: trains, measures, and writes ours beside the paper's",
}


def main() -> None:
    parser = OneLineParser(prog="python -m eval", description="Measures a trained run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, explained in COMMANDS.items():
        one = commands.add_parser(name, help=explained, description=explained)
        if name == chosen:
            # Only the chosen command's module is imported: some take seconds to load.
            module = importlib.import_module(f"eval.commands.{name}")
            module.add_arguments(one)
            one.set_defaults(run_command=module.run)
    arguments = parser.parse_args()
    arguments.run_command(arguments)


if __name__ == "__main__":
    sys.exit(group_command(main))
