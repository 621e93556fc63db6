"""python -m trainer.flow: fits a normalising flow to the latent codes of a run, in one process."""

from data_shards.io.interruption import one_line_when_interrupted
from data_shards.io.working_folder import end_where_it_is_gone

if __name__ == "__main__":
    one_line_when_interrupted()  # the other imports take seconds
    end_where_it_is_gone()

import sys

from data_shards.io.errors import OneLineParser, command
from data_shards.io.options import add_lock_option, seed
from trainer.device import DEVICES
from trainer.flow.fit import FlowSettings
from trainer.flow.run_flow import fit_run_flow
from trainer.run_folder.latents import WEIGHTS


def parser() -> OneLineParser:
    """The command line."""
    parser = OneLineParser(
        prog="python -m trainer.flow",
        description="Fits a normalising flow to the latent codes of a run (see python -m eval encode) and writes "
        "RUN/flows/WEIGHTS. The same command again returns at once.",
    )
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", choices=WEIGHTS, default="final", help="whose codes")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the codes")
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the weights, the order of codes and their samples"
    )
    add_lock_option(parser, "the fit")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where the fit runs; auto is cuda where there is a GPU"
    )
    return parser


def main() -> None:
    """Reads the command line, fits, prints."""
    args = parser().parse_args()
    fitted = fit_run_flow(
        args.run,
        FlowSettings(epochs=args.epochs, seed=args.seed),
        weights=args.weights,
        device=args.device,
        show_progress=True,
        steal_lock=args.steal_lock,
    )
    if fitted.is_new:
        held_out = fitted.summary["held_out"]
        error = "" if held_out["standard_error"] is None else f" +- {held_out['standard_error']:.3f}"
        print(f"{fitted.folder}: log-likelihood {held_out['nats']:.3f}{error} held out")
    else:
        print(f"{fitted.folder}: already fitted with these settings")


if __name__ == "__main__":
    sys.exit(command(main))
