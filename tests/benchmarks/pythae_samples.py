"""The distance of pythae's samples, with the encoder, decoder, images and budget of one of our runs.

    python tests/benchmarks/pythae_samples.py --run runs/fashion-mnist --model VAE --components 10 32

Needs the extra `benchmarks`. pythae trains `--model` for as many epochs as both stages of RUN took, with Adam at the
same learning rate and cosine schedule. 10,000 samples of its own GaussianMixtureSampler are measured by `eval`'s
extractor and distance, as `python -m eval fid` measures ours; and once more transported by the maps of `python -m eval
transport`, which help any model whose images are too smooth. One line of JSON a number of components is printed, and
written under RUN/eval.
"""

import argparse
import dataclasses
import json
import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import RAE_L2, VAE, RAE_L2_Config, VAEConfig
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae_networks import Decoder, Encoder
from torch import Tensor

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError, command
from data_shards.stream.stream import ShardStream
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.extractor import Extractor
from eval.distance.features import extract, reference_statistics
from eval.distance.measures.frechet import frechet_distance
from eval.distance.statistics import FeatureStatistics
from eval.images.blocks import BLOCK, block_ids
from eval.images.sources import ImageSource, to_8_bits
from eval.images.transport import fit_transport
from eval.run import MeasuredRun, load_run
from trainer.mixture.density import MixtureDensity
from trainer.mixture.parameters import Parameters
from trainer.networks import Likelihood, Posterior, SigmaVAE
from trainer.process_group import Ranks, process_group
from trainer.run_folder.log import read_events

MODELS = {"VAE": (VAE, VAEConfig), "RAE_L2": (RAE_L2, RAE_L2_Config)}
SAMPLES = 10_000


def training_images(run: MeasuredRun) -> Tensor:
    """All images of the training split, (N, C, H, W) in [0, 1]."""
    config = run.config.data
    stream = ShardStream(config.shards, split=config.train_split, global_batch=BLOCK, shuffle=False)
    found: list[Tensor] = []
    for batch in stream:
        found.append(batch.image)
        if stream.position >= run.manifest.num_samples(config.train_split):
            break
    return torch.cat(found)[: run.manifest.num_samples(config.train_split)].float() / 255


def trained(kind: str, run: MeasuredRun, images: Tensor, epochs: int, seed: int) -> VAE | RAE_L2:
    """pythae's model of that kind after `epochs` epochs of its own trainer."""
    model_class, config_class = MODELS[kind]
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    network = SigmaVAE(run.manifest.image_shape, run.config.model)
    model = model_class(
        config_class(input_dim=run.manifest.image_shape, latent_dim=run.config.model.latent_dim),
        encoder=Encoder(network),
        decoder=Decoder(network),
    )
    optimiser = run.config.optimiser
    with tempfile.TemporaryDirectory() as folder:
        BaseTrainer(
            model=model,
            train_dataset=BaseDataset(images, torch.zeros(len(images))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=run.config.data.global_batch,
                learning_rate=optimiser.learning_rate,
                optimizer_params={"betas": optimiser.betas},
                scheduler_cls="CosineAnnealingLR",
                scheduler_params={
                    "T_max": epochs,
                    "eta_min": optimiser.learning_rate * optimiser.final_fraction,
                },
                seed=seed,
                no_cuda=True,
            ),
        ).train()
    return model.eval()


class AsOurs:
    """pythae's model under the names that `eval.images.transport` calls."""

    def __init__(self, model: VAE | RAE_L2, network: SigmaVAE) -> None:
        self.model, self.pixels, self.latent_dim = model, network.pixels, network.latent_dim

    def encode(self, x: Tensor) -> Posterior:
        found = self.model.encoder(x)
        # The regularised autoencoder has codes without a spread.
        std = (0.5 * found.log_covariance).exp() if isinstance(self.model, VAE) else torch.zeros_like(found.embedding)
        return Posterior(found.embedding, std)

    def decode(self, z: Tensor) -> Likelihood:
        return Likelihood(self.model.decoder(z.float()).reconstruction, torch.ones(1))


def transported(run: MeasuredRun, model: VAE | RAE_L2, sampler: GaussianMixtureSampler, ranks: Ranks) -> Tensor:
    """SAMPLES samples of pythae's mixture, decoded and transported, (N, C, H, W) float32."""
    found = sampler.gmm
    weights, means, covariances = (torch.tensor(v) for v in (found.weights_, found.means_, found.covariances_))
    mixture = MixtureDensity(Parameters.of("full", weights, means, covariances))
    theirs = AsOurs(model, run.model)
    maps = fit_transport(dataclasses.replace(run, model=cast(SigmaVAE, theirs)), mixture, ranks).transport
    z = torch.tensor(found.sample(SAMPLES)[0]).float()
    with torch.inference_mode():
        return torch.cat([maps.apply(part, theirs.decode(part).mean) for part in z.split(BLOCK)])


def distance_of(images: Tensor, extractor: Extractor, reference: FeatureStatistics, title: str, ranks: Ranks) -> float:
    """The distance of images, (N, C, H, W) in [0, 1], to the reference."""
    made = extract(as_source(to_8_bits(images)), extractor, ranks, n=len(images), title=title, protocol={})
    return frechet_distance(made.mean(), made.covariance(), reference.mean(), reference.covariance())


def as_source(images: Tensor) -> ImageSource:
    """Images in memory, (N, C, H, W) uint8, as a set that `extract` takes."""

    def blocks_of_images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        for block in blocks:
            ids = block_ids(block, len(images))
            yield ids, images[ids]

    return blocks_of_images


def epochs_of(run: MeasuredRun) -> int:
    """Epochs that both stages of the run took together, rounded."""
    images = read_events(run.folder)[-1]["images"]
    return max(1, round(images / run.manifest.num_samples(run.config.data.train_split)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a finished run of ours")
    parser.add_argument("--model", required=True, choices=tuple(MODELS), help="pythae's model")
    parser.add_argument("--components", type=int, nargs="+", default=[10, 32], help="sizes of its mixture sampler")
    parser.add_argument("--epochs", type=int, help="epochs of pythae's training; as many as RUN took")
    parser.add_argument("--seed", type=int, default=0, help="seed of its training and samples")
    args = parser.parse_args()
    with process_group("cpu") as ranks:
        run = load_run(args.run, "final", ranks.device)
        epochs = args.epochs or epochs_of(run)
        images = training_images(run)
        model = trained(args.model, run, images, epochs, args.seed)
        extractor = extractor_by_name("efficientnet-lite0", ranks.device)
        reference = reference_statistics(run.config.data.shards, run.manifest, "test", extractor, ranks)
        for components in args.components:
            np.random.seed(args.seed)  # the sampler draws from numpy's global generator
            sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=components))
            sampler.fit(images)
            distance = distance_of(sampler.sample(SAMPLES), extractor, reference, args.model, ranks)
            moved = distance_of(
                transported(run, model, sampler, ranks), extractor, reference, f"{args.model}, transported", ranks
            )
            result = {
                "model": args.model,
                "components": components,
                "epochs": epochs,
                "seed": args.seed,
                "samples": SAMPLES,
                "reference": "test",
                "extractor": dict(extractor.description),
                "frechet_distance": distance,
                "carried_frechet_distance": moved,
            }
            if not math.isfinite(distance):
                raise InputError(f"{args.model}: its samples have no finite distance")
            write_json(Path(args.run) / "eval" / f"pythae-{args.model}-{components}-seed{args.seed}.json", result)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    command(main)
