"""python -m trainer.flow --run RUN [--weights stage1]: fits a flow to the latent codes of a run, in one process."""

import sys

from data_shards.io.errors import OneLineParser, command
from data_shards.io.progress import Progress
from trainer.flow.fitting import FlowSettings, fit_flow
from trainer.flow.storage import FLOW, flow_folder, save_flow
from trainer.run_folder import latents
from trainer.run_folder.checkpoint import fingerprint
from trainer.run_folder.latents import Latents


def read_codes(run: str, weights: str) -> tuple[Latents, Latents]:
    """Codes of split train, and those of split valid for validation. Raises InputError where they are missing."""
    return latents.read(run, "train", weights=weights), latents.read(run, "valid", weights=weights)


def main() -> None:
    parser = OneLineParser(
        prog="python -m trainer.flow",
        description="Fits a normalising flow to the latent codes of a run (see python -m eval encode) and writes "
        "RUN/flows/WEIGHTS. The same command again returns at once.",
    )
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", choices=latents.WEIGHTS, default="final", help="codes of these weights")
    parser.add_argument("--epochs", type=int, default=FlowSettings.epochs, help="passes over the codes (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    args = parser.parse_args()
    settings = FlowSettings(epochs=args.epochs, seed=args.seed)
    codes, held_out = read_codes(args.run, args.weights)
    folder = flow_folder(args.run, args.weights)
    facts = {"codes": f"{fingerprint({'mean': codes.mean, 'std': codes.std}):016x}"}
    found = FLOW.read_record(folder)
    if found is not None and found["codes"] == facts["codes"] and FlowSettings(**found["settings"]) == settings:
        print(f"{folder}: already fitted with these settings")
        return
    with Progress("flow", settings.epochs, "epochs") as bar:
        bar.update(0)
        fitted = fit_flow(codes, held_out, settings, lambda epoch, nats: bar.update(epoch, nats=f"{nats:.3f}"))
    save_flow(folder, fitted, settings, facts)
    print(f"{folder}: log-likelihood {fitted.held_out:.3f} +- {fitted.held_out_error:.3f} held out")


if __name__ == "__main__":
    sys.exit(command(main))
