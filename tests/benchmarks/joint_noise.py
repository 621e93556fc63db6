"""Whether it helps to train on under correlated noise, or whether its closed form has all of the gain.

    python tests/benchmarks/joint_noise.py --run runs/demo --epochs 3 --out joint.png

From the final weights of RUN, three ways to the same noise p(x|z) = N(g(z), S(z) (L L^T + D) S(z)):

closed form   the covariance of the residuals is fitted, as `python -m eval residuals` does, and nothing is trained;
independent   stage 2 goes on for some epochs with independent pixels, and the covariance is fitted after each;
correlated    the networks are trained for as many epochs with the covariance of the epoch before, which is fitted anew
              after each.

Learning rate, batch and images are those of RUN's second stage. Printed and drawn is the ELBO of test images with the
covariance of that epoch, which no training has seen.
"""

import argparse
import copy
import dataclasses
import json
import math
import sys
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.errors import command  # noqa: E402
from data_shards.stream.stream import ShardStream  # noqa: E402
from eval.images.blocks import image_noise, subset_blocks, subset_indices  # noqa: E402
from eval.report.charts import BLUE, ORANGE, STYLE, png  # noqa: E402
from eval.residuals.covariance import FactorCovariance  # noqa: E402
from eval.residuals.fit import fit_covariances  # noqa: E402
from eval.residuals.noise import CorrelatedNoise, standardised  # noqa: E402
from eval.residuals.stored import algorithm1_floor  # noqa: E402
from eval.run import MeasuredRun, load_run  # noqa: E402
from trainer.networks.model import Likelihood  # noqa: E402
from trainer.objectives.families import log_likelihood  # noqa: E402
from trainer.objectives.gaussian import LOG_2PI, kl_to_prior, reparameterise  # noqa: E402
from trainer.process_group import single  # noqa: E402

TEST_IMAGES = 2000


def fitted(run: MeasuredRun) -> FactorCovariance:
    """One covariance for all, with the floor of Algorithm 1."""
    return fit_covariances(run, None, algorithm1_floor(run), single()).covariances[0]


@torch.no_grad()
def measured(run: MeasuredRun, covariance: FactorCovariance) -> dict[str, float]:
    """The ELBO of test images in nats per image, with its standard error, and their square error a pixel."""
    noise = CorrelatedNoise(covariances=(covariance,), mixture=None, digest="", cap=0.0)
    indices = subset_indices(run.manifest, "test", TEST_IMAGES)
    rows = []
    for _, index, x in subset_blocks(run.config.data.location, "test", indices, single()):
        posterior = run.model.encode(x)
        z = posterior.mean + posterior.std * image_noise(0, index.tolist(), 1, run.model.latent_dim)[0]
        output = run.model.decode(z)
        kl = kl_to_prior(posterior.mean, posterior.std)
        error = (x - output.mean).square().mean((1, 2, 3))
        rows.append(torch.stack([noise.log_likelihood(x, z, output) - kl, log_likelihood(x, output) - kl, error], 1))
    table = torch.cat(rows).double()
    elbo, independent, error = table.mean(0).tolist()
    return {
        "elbo": elbo,
        "standard_error": float(table[:, 0].std() / math.sqrt(len(table))),
        "elbo_independent": independent,
        "mean_square_error": error,
    }


class Noise:
    """log p(x|z) with gradients: of independent pixels, or of a fixed covariance of standardised residuals."""

    def __init__(self, covariance: FactorCovariance | None) -> None:
        self.precision = torch.linalg.inv(covariance.dense).float() if covariance else None
        self.constant = covariance.log_determinant if covariance else 0.0

    def __call__(self, x: Tensor, output: Likelihood) -> Tensor:
        if self.precision is None:
            return log_likelihood(x, output)
        u, std = (part.float() for part in standardised(x, output))
        square = ((u @ self.precision) * u).sum(1)
        return -0.5 * (square + self.constant + u.shape[1] * LOG_2PI) - std.log().sum(1)


def train_epoch(run: MeasuredRun, optimiser: torch.optim.Adam, noise: Noise, epoch: int, epochs: int) -> None:
    """One pass over the training images in their order of that epoch."""
    data, settings = run.config.data, run.config.optimiser
    n = run.manifest.num_samples(data.train_split)
    stream = ShardStream(data.location, split=data.train_split, global_batch=data.global_batch, seed=1000 + epoch)
    generator = torch.Generator().manual_seed(epoch)
    top = settings.learning_rate * settings.stage2_fraction
    for batch in stream:
        done = (epoch + min(1.0, stream.position / n)) / epochs
        falling = 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = top * (settings.final_fraction + (1 - settings.final_fraction) * falling)
        x = batch.image.float() / 255
        posterior = run.model.encode(x)
        eps = torch.randn(posterior.mean.shape, generator=generator)
        output = run.model.decode(reparameterise(posterior.mean, posterior.std, eps))
        loss = (kl_to_prior(posterior.mean, posterior.std) - noise(x, output)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if stream.position >= n:
            break


def trained_on(run: MeasuredRun, start: FactorCovariance, epochs: int, *, correlated: bool) -> list[dict[str, float]]:
    """What is measured after each epoch."""
    own = dataclasses.replace(run, model=copy.deepcopy(run.model))
    optimiser = torch.optim.Adam(own.model.parameters(), betas=run.config.optimiser.betas)
    found, covariance = [], start
    for epoch in range(epochs):
        own.model.train()
        train_epoch(own, optimiser, Noise(covariance if correlated else None), epoch, epochs)
        own.model.eval()
        covariance = fitted(own)
        found.append(measured(own, covariance))
        print("correlated" if correlated else "independent", epoch + 1, json.dumps(found[-1]), flush=True)
    return found


def draw(start: dict[str, float], arms: dict[str, list[dict[str, float]]], out: Path) -> None:
    """The ELBO by epoch."""
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(5, 3.2), layout="constrained")
        axes = drawn.subplots()
        for (name, points), colour in zip(arms.items(), (ORANGE, BLUE), strict=True):
            values = [start["elbo"], *(point["elbo"] for point in points)]
            axes.plot(range(len(values)), values, color=colour, marker="o", label=f"trained with {name} pixels")
        axes.set(xlabel="epochs after stage 2", ylabel="ELBO of test images, correlated noise, nats")
        axes.legend()
        out.write_bytes(png(drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a finished run of small images")
    parser.add_argument("--epochs", type=int, default=3, help="of further training")
    parser.add_argument("--out", type=Path, required=True, help="the figure, a PNG")
    args = parser.parse_args()
    run = load_run(args.run, "final")
    for parameter in run.model.parameters():
        parameter.requires_grad_(True)
    start = fitted(run)
    closed_form = measured(run, start)
    print("closed form", json.dumps(closed_form), flush=True)
    arms = {
        name: trained_on(run, start, args.epochs, correlated=name == "correlated")
        for name in ("independent", "correlated")
    }
    draw(closed_form, arms, args.out)


if __name__ == "__main__":
    command(main)
