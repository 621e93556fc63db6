"""`python -m eval report`: one self-contained page with everything measured so far, and one picture of the samples."""

import argparse

from data_shards.io.atomic import write_bytes, write_text
from eval.commands.options import add_device_option
from eval.report.gallery import SIDE, overview
from eval.report.model_sections import fitted_mixture, fitted_transport, mixture_latents
from eval.report.page import build_page
from eval.run import load_run
from trainer.mixture.settings import COVARIANCE_TYPES
from trainer.process_group import process_group, single


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval report`."""
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--mixture", type=int, default=32, help="components of the fitted mixture to sample from")
    parser.add_argument("--covariance", default="full", choices=COVARIANCE_TYPES, help="the mixture's covariance type")
    parser.add_argument("--split", default="test", help="split whose images are reconstructed")
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Writes RUN/report.html, and RUN/samples/overview.png where a mixture is fitted."""
    with process_group(args.device) as ranks:
        if not ranks.is_main:
            return
        measured = load_run(args.run, "final", ranks.device)
        alone = single(ranks.device)
        page = build_page(measured, split=args.split, components=args.mixture, covariance=args.covariance, ranks=alone)
        mixture = fitted_mixture(measured, args.mixture, args.covariance)
        if mixture is not None:
            latents = mixture_latents(mixture)[: SIDE**2].to(ranks.device)
            folder = measured.folder / "samples"
            folder.mkdir(exist_ok=True)
            transport = fitted_transport(measured, args.mixture, args.covariance)
            picture = overview(measured.model, latents, measured.config.name, transport)
            write_bytes(folder / "overview.png", picture)
            print(f"written to {folder / 'overview.png'}")
        path = measured.folder / "report.html"
        write_text(path, page.html())
        print(f"written to {path}")
