"""The options of the commands that measure one set of weights of a run on some images of a split."""

import argparse

from trainer.mixture.settings import COVARIANCE_TYPES


def add_run_options(parser: argparse.ArgumentParser, *, images: int, images_help: str, mixture_help: str = "") -> None:
    """Adds --run, --weights, --images, --mixture, --covariance, --split, --seed and --device.

    images: default of --images; images_help, mixture_help: what the command takes these two for; without the latter
    there is neither --mixture nor --covariance.
    """
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", default="final", choices=("final", "stage1"), help="which weights to measure")
    parser.add_argument("--images", type=int, default=images, help=images_help)
    if mixture_help:
        parser.add_argument("--mixture", type=int, default=32, help=mixture_help)
        parser.add_argument(
            "--covariance", default="full", choices=COVARIANCE_TYPES, help="the mixture's covariance type"
        )
    parser.add_argument("--split", default="test", help="split of the data")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the network runs")
