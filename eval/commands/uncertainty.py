"""`python -m eval uncertainty`: whether a run's predicted variance tells how far its reconstructions are off."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.commands.options import add_run_options
from eval.images.noise import image_noise
from eval.images.subset import gathered, share, subset_blocks, subset_indices
from eval.run import MeasuredRun, VarianceProtocol, measured_before, open_run
from eval.uncertainty.uncertainty import uncertainty_values
from trainer.process_group import Ranks, process_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval uncertainty`."""
    add_run_options(parser, images=500, images_help="number of images, evenly spaced over the split")


@torch.inference_mode()
def predictions(run: MeasuredRun, args: argparse.Namespace, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Errors x - g(z) and variances sigma_k(z)^2 with one z ~ q(z|x) an image, (N, d) float32, on every process."""
    model = run.model
    indices = subset_indices(run.manifest, args.split, args.images)
    errors = torch.zeros(len(indices), model.pixels)
    variances = torch.zeros_like(errors)
    start, stop = share(len(indices), ranks)
    with Progress(f"uncertainty, {run.weights} weights", stop - start, show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, x in subset_blocks(run.config.data.shards, args.split, indices, ranks):
            posterior = model.encode(x)
            noise = image_noise(args.seed, index.tolist(), 1, model.latent_dim)[0].to(ranks.device)  # (B, D)
            decoded = model.decode(posterior.mean + posterior.std * noise)
            errors[places] = (x - decoded.mean).flatten(1).cpu()
            variances[places] = decoded.variance.expand_as(decoded.mean).flatten(1).cpu()
            bar.update(places.stop - start)
    return gathered(errors, ranks), gathered(variances, ranks)


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/uncertainty.json (uncertainty-stage1.json for the end of stage 1).

    A result that is there already by the same protocol is only printed.
    """
    if args.seed < 0:
        raise InputError(f"--seed: {args.seed} is below 0")
    with process_group(args.device) as ranks:
        measured = open_run(args.run, args.weights, ranks.device)
        fields = measured.variance_protocol(args.split, args.images, args.seed)
        protocol = VarianceProtocol(**fields, measure="uncertainty 1")
        path = measured.result_path("uncertainty")
        result = measured_before(path, protocol)
        if ranks.any(result is None):
            errors, variances = predictions(measured, args, ranks)
            if ranks.is_main:
                values = uncertainty_values(errors.double(), variances.double())
                result = {"protocol": protocol.record(), **values}
                write_json(path, result)
        if ranks.is_main and result is not None:
            show(result, path)


def show(result: dict[str, Any], path: Path) -> None:
    """Prints the gist of the result."""
    for number in result["coverage"]:
        print(f"{number['level']:6.0%} intervals hold {number['value']:.1%} of the pixels")
    area, chance = result["sparsification"]["area"], result["sparsification"]["area_of_chance"]
    print(f"sparsification area {area:.4f} (0 is a perfect order, {chance:.4f} an order by chance)")
    print(f"rank correlation of variance and squared error {result['rank_correlation_over_pixels']:.4f}")
    print(f"gain over the best single variance {result['log_likelihood_gain']:z.2f} nats per image")
    print(f"written to {path}")
