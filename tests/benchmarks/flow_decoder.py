"""A third decoder by flow matching, trained after both stages: draws of p(x|z) are moved to real images of that code.

    python tests/benchmarks/flow_decoder.py --run runs/demo --epochs 5 --mixtures 32 1000 --noises smooth own none

p(x|z) of the run is N(g(z), diag sigma(z)^2). A small U-Net v(x, t, z) that also sees g(z) and sigma(z) is trained by
rectified flow (Liu et al. 2022): x_t = (1 - t) x_0 + t x for training images x, z ~ q(z|x), x_0 ~ p(x|z), and the least
square error of v(x_t, t, z) to x - x_0. Encoder, decoder and mixture stay as they are. An image is x_0 carried from
t = 0 to 1 by Heun's method. The noise in its x_0 = g(z) + sigma(z) noise is

smooth   a fixed function of z, sums of cosines of random directions of z (a Gaussian process of unit length scale and
         variance), so that an image is a continuous function of the latents;
own      drawn for each image by itself;
none     zero.

Prints the distance of 10,000 samples to the test images by each extractor; a line of JSON a mixture and noise, which
is also written to RUN/eval for idea_tables.py. The U-Net is kept there too, and trained once.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from flow_network import Velocity
from image_distance import distances_to_test, latents_of_samples
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.atomic import write_json  # noqa: E402
from data_shards.io.errors import command  # noqa: E402
from eval.images.blocks import subset_blocks, subset_indices  # noqa: E402
from eval.run import MeasuredRun, load_run  # noqa: E402
from trainer.process_group import single  # noqa: E402

BATCH = 64
LEARNING_RATE = 2e-3
DIRECTIONS = 2048
"""Cosines in a smooth noise."""


@torch.no_grad()
def training_set(run: MeasuredRun) -> tuple[Tensor, Tensor, Tensor]:
    """Training images (N, 1, H, W) uint8, and mean and deviation of q(z|x), (N, D) each."""
    split = run.config.data.train_split
    indices = subset_indices(run.manifest, split, run.manifest.num_samples(split))
    images, means, stds = [], [], []
    for _, _, x in subset_blocks(run.config.data.location, split, indices, single()):
        q = run.model.encode(x)
        images.append((255 * x).round().to(torch.uint8))
        means.append(q.mean)
        stds.append(q.std)
    return torch.cat(images), torch.cat(means), torch.cat(stds)


def train(run: MeasuredRun, epochs: int) -> Velocity:
    """The velocity of the flow, Adam with a rate that falls to 0 as half a cosine."""
    images, means, stds = training_set(run)
    torch.manual_seed(run.config.seed)
    model = Velocity(run.model.latent_dim).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    per_epoch, began, losses = len(images) // BATCH, time.monotonic(), []
    total = epochs * per_epoch
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: 0.5 * (1 + math.cos(math.pi * i / total)))
    for step in range(total):
        if step % per_epoch == 0:
            order = torch.randperm(len(images)).split(BATCH)
        own = order[step % per_epoch]
        x = (images[own] + torch.rand(len(own), *run.model.image_shape)) / 256  # dequantised: it has a density
        z = means[own] + stds[own] * torch.randn(len(own), run.model.latent_dim)
        with torch.no_grad():
            decoded = run.model.decode(z)
            mean, std = decoded.mean, decoded.variance.sqrt()
        start, t = mean + std * torch.randn_like(mean), torch.rand(len(own))
        between = torch.lerp(start, x, t[:, None, None, None])
        loss = (model(between, t, z, mean, std) - (x - start)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        losses.append(loss.item())
        if (step + 1) % 200 == 0:
            pace = (step + 1) * BATCH / (time.monotonic() - began)
            mean_loss = sum(losses[-200:]) / 200
            print(f"{step + 1} of {total} steps, loss {mean_loss:.5f}, {pace:.0f} images a second", file=sys.stderr)
    return model.eval()


def trained_velocity(run: MeasuredRun, epochs: int) -> Velocity:
    """The velocity that is kept with the run, trained first where there is none."""
    weights = run.folder / "eval" / f"flow-decoder-{epochs}-epochs.safetensors"
    if not weights.exists():
        made = train(run, epochs)
        save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, weights)
    model = Velocity(run.model.latent_dim).to(memory_format=torch.channels_last).eval()
    model.load_state_dict(load_file(weights))
    return model


def smooth_noise(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A Gaussian process of z, the same for every call: (B, D) to (B, *shape), each number of variance 1."""
    fixed = torch.Generator().manual_seed(0)
    directions = torch.randn(z.shape[1], DIRECTIONS, generator=fixed)
    phases = 2 * math.pi * torch.rand(DIRECTIONS, generator=fixed)
    weights = torch.randn(DIRECTIONS, math.prod(shape), generator=fixed)
    return (((z @ directions + phases).cos() * (2 / DIRECTIONS) ** 0.5) @ weights).view(len(z), *shape)


@torch.inference_mode()
def carried(run: MeasuredRun, model: Velocity, z: Tensor, noise: Tensor, steps: int) -> Tensor:
    """The images of latents (B, D) with the noise (B, 1, H, W) of their starts, not cut to [0, 1]."""
    decoded = run.model.decode(z)
    mean, std = decoded.mean, decoded.variance.sqrt()
    x = mean + std * noise
    for step in range(steps):
        t = torch.full((len(z),), step / steps)
        first = model(x, t, z, mean, std)
        second = model(x + first / steps, t + 1 / steps, z, mean, std)
        x = x + (first + second) / (2 * steps)
    return x


def noise_of(kind: str, z: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The noise of a kind for latents z, see above."""
    if kind == "smooth":
        return smooth_noise(z, shape)
    return torch.randn(len(z), *shape, generator=generator) if kind == "own" else torch.zeros(len(z), *shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a finished run of grey images with mixtures")
    parser.add_argument("--epochs", type=int, default=5, help="of training")
    parser.add_argument("--steps", type=int, default=6, help="of Heun's method")
    parser.add_argument("--mixtures", type=int, nargs="+", default=[1000], help="components of each mixture")
    parser.add_argument("--noises", nargs="+", choices=("smooth", "own", "none"), default=["smooth"], help="see above")
    parser.add_argument("--extractors", nargs="+", default=["efficientnet-lite0", "efficientnet-lite2"])
    args = parser.parse_args()
    run, ranks = load_run(args.run, "final"), single()
    model = trained_velocity(run, args.epochs)
    for components in args.mixtures:
        z = latents_of_samples(run, components)
        for kind in args.noises:
            drawn = torch.Generator().manual_seed(0)
            images = [
                carried(run, model, part, noise_of(kind, part, run.model.image_shape, drawn), args.steps)
                for part in z.split(500)
            ]
            made = (256 * torch.cat(images)).floor() / 255  # as it was dequantised
            found = {"idea": f"flow-{kind}", "components": components, "epochs": args.epochs, "steps": args.steps}
            found |= distances_to_test(run, made, args.extractors, "flow", ranks)
            write_json(run.folder / "eval" / f"idea-flow-{kind}-{components}.json", found)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    command(main)
