"""Whether samples get nearer to real images where stage 1 ends with sigma^2 below its optimum.

    python tests/benchmarks/lowered_variance.py --run runs/demo --factors 1 0.5 --epochs 1

From the end of stage 1 of RUN the networks are trained on for some epochs with sigma^2 fixed at a factor of its
optimum: with 1 it is the same training a little longer, with smaller ones the codes' noise fades as in a deterministic
autoencoder. The training codes then get a mixture as `python -m trainer.mixture` fits them. Printed is a line of JSON a
factor: held-out square error and KL, held-out nats of codes, and the distance of 10,000 samples and of 10,000
reconstructions to the test images by each extractor. It is also written to RUN/eval for idea_tables.py.
"""

import argparse
import copy
import dataclasses
import json
import math
import sys
from pathlib import Path

import torch
from image_distance import SAMPLES, distances_to_test
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.atomic import write_json  # noqa: E402
from data_shards.io.errors import command  # noqa: E402
from data_shards.stream.stream import ShardStream  # noqa: E402
from eval.images.blocks import BLOCK, image_noise, subset_blocks, subset_indices  # noqa: E402
from eval.run import MeasuredRun, load_run  # noqa: E402
from trainer.mixture import GaussianMixture  # noqa: E402
from trainer.objectives.gaussian import LOG_2PI, kl_to_prior, reparameterise  # noqa: E402
from trainer.process_group import single  # noqa: E402


def train(run: MeasuredRun, sigma2: float, epochs: int) -> None:
    """Stage 1 goes on with a fixed variance, at its own rate, which falls to its least as in a stage of that length."""
    data, settings = run.config.data, run.config.optimiser
    n = run.manifest.num_samples(data.train_split)
    optimiser = torch.optim.Adam(run.model.parameters(), lr=settings.learning_rate, betas=settings.betas)
    run.model.train()
    for epoch in range(epochs):
        stream = ShardStream(data.location, split=data.train_split, global_batch=data.global_batch, seed=1000 + epoch)
        generator = torch.Generator().manual_seed(epoch)
        for batch in stream:
            done = (epoch + min(1.0, stream.position / n)) / epochs
            falling = 0.5 * (1 + math.cos(math.pi * done))
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * settings.stage2_fraction * (0.05 + 0.95 * falling)
            x = batch.image.float() / 255
            posterior = run.model.encode(x)
            eps = torch.randn(posterior.mean.shape, generator=generator)
            mean = run.model.decode(reparameterise(posterior.mean, posterior.std, eps)).mean
            square = (x - mean).square().sum((1, 2, 3))
            loss = (kl_to_prior(posterior.mean, posterior.std) + square / (2 * sigma2)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if stream.position >= n:
                break
    run.model.eval()


@torch.no_grad()
def encoded(run: MeasuredRun, split: str) -> tuple[Tensor, dict[str, float], Tensor]:
    """A sample of each code (N, D) float64, means of square error and KL, and the reconstructions (N, C, H, W)."""
    n = run.manifest.num_samples(split)
    codes, images, rows = [], [], []
    for _, index, x in subset_blocks(run.config.data.location, split, subset_indices(run.manifest, split, n), single()):
        q = run.model.encode(x)
        z = q.mean + q.std * image_noise(0, index.tolist(), 1, run.model.latent_dim)[0]
        error = (run.model.decode(z).mean - x).square().mean((1, 2, 3))
        rows.append(torch.stack([error, kl_to_prior(q.mean, q.std)], 1))
        codes.append(z.double())
        images.append(run.model.decode(q.mean).mean)
    error, kl = torch.cat(rows).double().mean(0).tolist()
    return torch.cat(codes), {"square_error": error, "kl": kl}, torch.cat(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run with the end of stage 1")
    parser.add_argument("--factors", type=float, nargs="+", default=[1, 0.5], help="of the optimum of sigma^2")
    parser.add_argument("--epochs", type=int, default=1, help="of further training")
    parser.add_argument("--components", type=int, default=500, help="of the mixture")
    parser.add_argument("--extractors", nargs="+", default=["efficientnet-lite0", "efficientnet-lite2"])
    args = parser.parse_args()
    run, ranks = load_run(args.run, "stage1"), single()
    optimum = run.model.dataset_variance
    for factor in args.factors:
        own = dataclasses.replace(run, model=copy.deepcopy(run.model))
        for parameter in own.model.parameters():
            parameter.requires_grad_(True)
        train(own, factor * optimum, args.epochs)
        codes, _, _ = encoded(own, "train")
        held_out, numbers, _ = encoded(own, "valid")
        mixture = GaussianMixture(args.components, random_state=0).fit(codes)
        z = torch.as_tensor(mixture.sample(SAMPLES, generator=torch.Generator().manual_seed(0))[0]).float()
        nats = float(mixture.score(held_out))
        elbo = -numbers["kl"] - run.model.pixels / 2 * (
            LOG_2PI + math.log(factor * optimum) + numbers["square_error"] / (factor * optimum)
        )
        found = {
            "idea": f"lowered-{factor:g}",
            "components": args.components,
            "sigma2": factor * optimum,
            "elbo": elbo,
            **numbers,
            "held_out_codes": nats,
        }
        with torch.inference_mode():
            samples = torch.cat([own.model.decode(part).mean for part in z.split(BLOCK)])
        _, _, reconstructions = encoded(own, "test")
        found |= distances_to_test(run, samples, args.extractors, "samples", ranks)
        blurred = distances_to_test(run, reconstructions, args.extractors, "reconstructions", ranks)
        found |= {f"reconstructions, {name}": value for name, value in blurred.items()}
        write_json(run.folder / "eval" / f"idea-lowered-{factor:g}-{args.components}.json", found)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    command(main)
