"""`python -m eval likelihood`: how likely held-out images are under a run, with every term and its standard error."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.commands.options import add_run_options
from eval.images.noise import image_noise
from eval.images.subset import gathered, share, subset_blocks, subset_indices
from eval.likelihood.latent_kl import latent_kl
from eval.likelihood.likelihood import Prior, sample_posterior
from eval.likelihood.values import image_values, summary, units
from eval.run import MeasuredRun, VarianceProtocol, measured_before, mixture_digest, open_run
from trainer.mixture import GaussianMixture
from trainer.objectives.gaussian import log_prior, variance_floor_cap
from trainer.process_group import Ranks, process_group
from trainer.updates.evaluation import ACTIVE_VARIANCE

KL_SAMPLES, KL_RUNS = 10_000, 10


@dataclass(frozen=True, kw_only=True)
class LikelihoodProtocol(VarianceProtocol):
    """What else a likelihood depends on."""

    importance_samples: int
    """Samples of q(z|x) for each image, K."""
    mixture: str
    """The fitted density in the place of the prior, as COMPONENTS-COVARIANCE; empty for none."""
    mixture_digest: str
    """Digest of its parameters; empty for none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval likelihood`."""
    add_run_options(
        parser,
        images=500,
        images_help="number of images, evenly spaced over the split",
        mixture_help="components of the fitted mixture; 0 for the prior only",
    )
    parser.add_argument("--samples", type=int, default=20, help="importance samples for each image")


def check(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense. Raises InputError."""
    for name, least in (("samples", 1), ("mixture", 0), ("seed", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name}: {getattr(args, name)} is below {least}")


def measure(run: MeasuredRun, args: argparse.Namespace, densities: dict[str, Prior], ranks: Ranks) -> dict[str, Any]:
    """Values with standard errors over the images, and the active dimensions; the same on every process."""
    indices = subset_indices(run.manifest, args.split, args.images)
    table = torch.zeros(len(indices), len(units(densities)), dtype=torch.float64)
    posterior_means = torch.zeros(len(indices), run.model.latent_dim, dtype=torch.float64)
    start, stop = share(len(indices), ranks)
    with Progress(f"likelihood, {run.weights} weights", stop - start, show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, images in subset_blocks(run.config.data.shards, args.split, indices, ranks):
            noise = image_noise(args.seed, index.tolist(), args.samples, run.model.latent_dim)
            samples = sample_posterior(run.model, images, noise.to(ranks.device))
            table[places] = image_values(samples, run.model.pixels, densities).cpu()
            posterior_means[places] = samples.posterior_mean.cpu()
            bar.update(places.stop - start)
    varies = gathered(posterior_means, ranks).var(0, correction=0) > ACTIVE_VARIANCE
    return {"values": summary(gathered(table, ranks), densities), "active_dimensions": int(varies.sum())}


def divergence(mixture: GaussianMixture, seed: int, ranks: Ranks) -> dict[str, Any]:
    """KL(q_hat || p) with its deviation over runs, as the paper's Table 1 gives it."""
    estimates = latent_kl(mixture, log_prior, ranks, num_samples=KL_SAMPLES, runs=KL_RUNS, seed=seed)
    return {
        "value": estimates.mean().item(),
        "standard_deviation": estimates.std().item(),
        "samples": KL_SAMPLES,
        "runs": KL_RUNS,
        "unit": "nats",
    }


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/likelihood.json (likelihood-stage1.json for the weights at the end of stage 1).

    A result that is there already by the same protocol is only printed.
    """
    check(args)
    with process_group(args.device) as ranks:
        measured = open_run(args.run, args.weights, ranks.device)
        mixture = measured.mixture(args.mixture, args.covariance, ranks.device) if args.mixture else None
        protocol = LikelihoodProtocol(
            **measured.variance_protocol(args.split, args.images, args.seed),
            measure="likelihood 1",
            importance_samples=args.samples,
            mixture=f"{args.mixture}-{args.covariance}" if mixture else "",
            mixture_digest=mixture_digest(mixture) if mixture else "",
        )
        path = measured.result_path("likelihood")
        result = measured_before(path, protocol)
        if ranks.any(result is None):
            densities: dict[str, Prior] = {"prior": log_prior} | ({"q_hat": mixture.score_samples} if mixture else {})
            result = {
                "protocol": protocol.record(),
                **measure(measured, args, densities, ranks),
                "latent_kl": divergence(mixture, args.seed, ranks) if mixture else None,
                "cap": variance_floor_cap(measured.model.pixels, measured.variance_floor),
                "dataset_variance": measured.model.dataset_variance,
            }
            if ranks.is_main:
                write_json(path, result)
        if ranks.is_main and result is not None:
            show(result, path)


def show(result: dict[str, Any], path: Path) -> None:
    """Prints the result as a table."""
    for name, number in result["values"].items():
        error = "" if number["standard_error"] is None else f" +- {number['standard_error']:.4g}"
        print(f"{name.replace('_', ' '):28} {number['value']:12.4f}{error}  {number['unit']}")
    print(f"{'cap of log p(x|z)':28} {result['cap']:12.4f}  nats per image, from the smallest variance possible (D3)")
    if result["latent_kl"]:
        kl = result["latent_kl"]
        spread = f"+- {kl['standard_deviation']:.4g}  nats, deviation over {kl['runs']} runs"
        print(f"{'KL(q_hat || p)':28} {kl['value']:12.4f} {spread}")
    print(f"{'active dimensions':28} {result['active_dimensions']:12d}")
    print(f"written to {path}")
