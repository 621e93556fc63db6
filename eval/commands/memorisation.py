"""`python -m eval memorisation`: whether samples are nearer to training images than new images are.

Samples from q_hat are held against reconstructions of held-out images, which are as smooth as samples are and come from
images that the model has never seen. With very many components q_hat could repeat its training codes, so the same is
asked of the latents themselves.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from data_shards.io.atomic import write_bytes, write_json
from data_shards.io.errors import InputError
from eval.commands.options import add_run_options
from eval.images.noise import image_noise, seeded_generator
from eval.images.sources import Finish, to_8_bits, unchanged
from eval.images.subset import gathered, subset_blocks, subset_indices
from eval.memorisation.nearest_training import chance_nearer, nearest_code_distance, nearest_images
from eval.run import MeasuredRun, VarianceProtocol, measured_before, mixture_digest, open_run
from eval.transport.storage import load_transport
from trainer.mixture import GaussianMixture
from trainer.process_group import Ranks, process_group
from trainer.run_folder import latents

NEIGHBOURS = 3


@dataclass(frozen=True, kw_only=True)
class MemorisationProtocol(VarianceProtocol):
    """What else the comparison depends on. `split` is the one whose images the model has not seen."""

    mixture: str
    """The density sampled, as COMPONENTS-COVARIANCE."""
    mixture_digest: str
    """Digest of its parameters."""
    train_split: str
    """The split that was trained on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval memorisation`."""
    add_run_options(
        parser,
        images=200,
        images_help="number of samples, and of held-out images",
        mixture_help="components of the fitted mixture to sample from",
    )
    parser.add_argument(
        "--from",
        dest="source",
        default="q_hat",
        choices=("q_hat", "transported"),
        help="transported: samples and reconstructions are both carried, see python -m eval transport",
    )


def held_out(
    run: MeasuredRun, split: str, count: int, seed: int, ranks: Ranks, finish: Finish
) -> tuple[Tensor, Tensor]:
    """Reconstructions (N, C, H, W) and sampled codes (N, D) of held-out images, on every process."""
    indices = subset_indices(run.manifest, split, count)
    images = torch.zeros(count, *run.model.image_shape)
    codes = torch.zeros(count, run.model.latent_dim)
    for places, index, x in subset_blocks(run.config.data.shards, split, indices, ranks):
        posterior = run.model.encode(x)
        noise = image_noise(seed, index.tolist(), 1, run.model.latent_dim)[0].to(ranks.device)
        z = posterior.mean + posterior.std * noise
        images[places], codes[places] = finish(z, run.model.decode(z).mean).cpu(), z.cpu()
    return gathered(images, ranks), gathered(codes, ranks)


def compared(ours: Tensor, others: Tensor) -> dict[str, Any]:
    """Nearest distances of samples, (N,), and of held-out images, (M,), in numbers."""
    return {
        "samples": {"median": ours.median().item(), "mean": ours.mean().item()},
        "held_out": {"median": others.median().item(), "mean": others.mean().item()},
        "chance_nearer": {
            "value": chance_nearer(ours, others),
            # of the Mann-Whitney statistic where both come from one distribution
            "standard_error": math.sqrt((len(ours) + len(others) + 1) / (12 * len(ours) * len(others))),
            "unit": "probability that a sample is nearer than a held-out image; 0.5 where it makes no difference",
        },
    }


@torch.inference_mode()
def measure(
    run: MeasuredRun, mixture: GaussianMixture, args: argparse.Namespace, ranks: Ranks
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The comparison, and the pictures that belong to it; the same on every process."""
    shards, train_split = run.config.data.shards, run.config.data.train_split
    train_codes = latents.read(run.folder, train_split, weights=run.weights).mean
    z = mixture.sample(args.images, seeded_generator(args.seed, "memorisation", 0))  # (N, D)
    carried = args.source == "transported"
    finish = load_transport(run, args.mixture, args.covariance).carry if carried else unchanged
    parts = [part.to(ranks.device) for part in z.split(50)]
    samples = torch.cat([finish(part, run.model.decode(part).mean).cpu() for part in parts])
    reconstructed, codes = held_out(run, args.split, args.images, args.seed, ranks, finish)
    near = nearest_images(torch.cat([samples, reconstructed]), shards, train_split, k=NEIGHBOURS, ranks=ranks)
    of_samples, of_others = near.distance[:, 0].split(args.images)
    numbers = {
        "pixel_distance": compared(of_samples, of_others),
        "code_distance": compared(nearest_code_distance(z, train_codes), nearest_code_distance(codes, train_codes)),
    }
    return numbers, {"sample": to_8_bits(samples), "nearest": near.image[: args.images].contiguous()}


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/[transported-]memorisation.json, and the images beside it as .safetensors.

    A result that is there already by the same protocol is only printed.
    """
    for name, least in (("images", 2), ("mixture", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name}: {getattr(args, name)} is below {least}")
    with process_group(args.device) as ranks:
        measured = open_run(args.run, args.weights, ranks.device)
        mixture = measured.mixture(args.mixture, args.covariance)
        protocol = MemorisationProtocol(
            **measured.variance_protocol(args.split, args.images, args.seed),
            measure="memorisation 1" if args.source == "q_hat" else f"memorisation 1, {args.source}",
            mixture=f"{args.mixture}-{args.covariance}",
            mixture_digest=mixture_digest(mixture),
            train_split=measured.config.data.train_split,
        )
        path = measured.result_path("memorisation" if args.source == "q_hat" else f"{args.source}-memorisation")
        result = measured_before(path, protocol)
        if ranks.any(result is None):
            numbers, pictures = measure(measured, mixture, args, ranks)
            result = {"protocol": protocol.record(), **numbers}
            if ranks.is_main:
                write_bytes(path.with_suffix(".safetensors"), save(pictures))
                write_json(path, result)
        if ranks.is_main and result is not None:
            show(result, path)


def show(result: dict[str, Any], path: Path) -> None:
    """Prints the gist of the result."""
    for name in ("pixel_distance", "code_distance"):
        chance = result[name]["chance_nearer"]
        title = f"by {name.replace('_', ' ')}, a sample is nearer to a training image"
        print(f"{title} than a held-out one with chance {chance['value']:.3f} +- {chance['standard_error']:.3f}")
    print(f"written to {path}")
