"""python -m trainer.flow --run RUN [--weights stage1]: fits a flow to the latent codes of a run, in one process."""

import sys

from data_shards.io.errors import OneLineParser, command
from trainer.flow import FlowSettings, fit_run_flow
from trainer.run_folder.latents import WEIGHTS


def main() -> None:
    """Reads the command line, fits, prints."""
    parser = OneLineParser(
        prog="python -m trainer.flow",
        description="Fits a normalising flow to the latent codes of a run (see python -m eval encode) and writes "
        "RUN/flows/WEIGHTS. The same command again returns at once.",
    )
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", choices=WEIGHTS, default="final", help="codes of these weights")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the codes (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    args = parser.parse_args()
    settings = FlowSettings(epochs=args.epochs, seed=args.seed)
    fitted = fit_run_flow(args.run, settings, weights=args.weights, show_progress=True)
    if fitted.is_new:
        held_out = fitted.summary["held_out"]
        nats, error = held_out["nats"], held_out["standard_error"]
        print(f"{fitted.folder}: log-likelihood {nats:.3f} +- {error:.3f} held out")
    else:
        print(f"{fitted.folder}: already fitted with these settings")


if __name__ == "__main__":
    sys.exit(command(main))
