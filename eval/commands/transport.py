"""`python -m eval transport`: the maps that give samples the spread of real images."""

import argparse

from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.run import open_run
from eval.transport.fitting import fit
from eval.transport.storage import facts, save_transport, transport_folder, transport_summary
from trainer.mixture.settings import COVARIANCE_TYPES
from trainer.process_group import process_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval transport`."""
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", default="final", choices=("final", "stage1"), help="whose mean images are carried")
    parser.add_argument("--mixture", type=int, default=32, help="components of the fitted mixture; each gets a map")
    parser.add_argument("--covariance", default="full", choices=COVARIANCE_TYPES, help="the mixture's covariance type")
    parser.add_argument("--seed", type=int, default=0, help="seed of the latents")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the networks run")


def run(args: argparse.Namespace) -> None:
    """Writes RUN/transports/K-COVARIANCE[-stage1], for `python -m eval fid --from transported`."""
    for name, least in (("mixture", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name}: {getattr(args, name)} is below {least}")
    with process_group(args.device) as ranks:
        measured = open_run(args.run, args.weights, ranks.device)
        mixture = measured.mixture(args.mixture, args.covariance)
        folder, depends_on = (
            transport_folder(measured, args.mixture, args.covariance),
            facts(measured, mixture, args.seed),
        )
        found = transport_summary(folder)
        if ranks.any(found is not None and found["depends_on"] == depends_on):
            if ranks.is_main:
                print(f"{folder}: fitted before to these weights and this mixture")
            return
        n = measured.manifest.num_samples(measured.config.data.train_split)
        with Progress(f"transport, {args.weights} weights", n, show=ranks.is_main) as bar:
            fitted = fit(measured, mixture, ranks, seed=args.seed, progress=bar.update)
        if ranks.is_main:
            save_transport(folder, fitted, depends_on)
            fewest, most = fitted.images
            shared = f", one of them of {fitted.shared} components" if fitted.shared else ""
            print(f"{folder}: {len(fitted.transport.maps)} maps{shared}; ", end="")
            print(f"components have {fewest:,} to {most:,} images; ", end="")
            print(f"square error a pixel {fitted.square_error:.5f}")
