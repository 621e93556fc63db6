"""The distance of pythae's samples, with the encoder, decoder, images and budget of one of our runs.

    python tests/benchmarks/pythae_samples.py --run runs/fashion-mnist --model VAE --components 10 32
    python tests/benchmarks/pythae_samples.py --run runs/demo --model RAE_L2 --components --choose 32 100 200 500 1000

Needs the extra `benchmarks`. pythae trains `--model` for as many epochs as both stages of RUN took, with Adam at the
same learning rate and cosine schedule. 10,000 samples of its own GaussianMixtureSampler are measured by `eval`'s
extractor and distance, as `python -m eval fid` measures ours; and once more transported by the maps of `python -m eval
transport`, which help any model whose images are too smooth. With `--choose` its codes get what ours have: mixtures as
`python -m trainer.mixture` fits them, of which the one is drawn from under which codes of held-out images are most
likely. The trained weights are kept under RUN/eval and used again. One line of JSON a mixture and extractor is printed,
and written there too.
"""

import argparse
import dataclasses
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from image_distance import distance_of
from pythae.data.datasets import BaseDataset
from pythae.models import RAE_L2, VAE, RAE_L2_Config, VAEConfig
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae_networks import Decoder, Encoder
from safetensors.torch import load_file, save
from torch import Tensor

from data_shards.io.atomic import write_bytes, write_json
from data_shards.io.errors import InputError, command
from data_shards.stream.stream import ShardStream
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.features import reference_statistics
from eval.images.blocks import BLOCK
from eval.images.transport import fit_transport
from eval.run import MeasuredRun, load_run
from trainer.mixture import GaussianMixture
from trainer.mixture.density import MixtureDensity
from trainer.mixture.parameters import Parameters
from trainer.networks.model import Likelihood, Posterior, SigmaVAE
from trainer.process_group import Ranks, process_group
from trainer.run_folder.log import read_events

MODELS = {"VAE": (VAE, VAEConfig), "RAE_L2": (RAE_L2, RAE_L2_Config)}
SAMPLES = 10_000


def images_of(run: MeasuredRun, split: str) -> Tensor:
    """All images of a split, (N, C, H, W) in [0, 1]."""
    stream = ShardStream(run.config.data.location, split=split, global_batch=BLOCK, shuffle=False)
    total = run.manifest.num_samples(split)
    found: list[Tensor] = []
    for batch in stream:
        found.append(batch.image)
        if stream.position >= total:
            break
    return torch.cat(found)[:total].float() / 255


def trained(kind: str, run: MeasuredRun, images: Tensor, epochs: int, seed: int) -> VAE | RAE_L2:
    """pythae's model of that kind after `epochs` epochs of its own trainer, which is only run once."""
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
    kept = run.folder / "eval" / f"pythae-{kind}-{epochs}-epochs-seed{seed}.safetensors"
    if kept.exists():
        model.load_state_dict(load_file(kept))
        return model.eval()
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
    write_bytes(kept, save({name: value.contiguous() for name, value in model.state_dict().items()}))
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


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Latents of a mixture of pythae's codes."""

    mixture: MixtureDensity
    """What they were drawn from."""
    z: Tensor
    """(SAMPLES, D) float32."""
    fitted: dict[str, object]
    """How the mixture came about, for the record."""


def of_its_own_sampler(model: VAE | RAE_L2, images: Tensor, components: int, seed: int) -> Samples:
    """Draws of pythae's GaussianMixtureSampler."""
    np.random.seed(seed)  # the sampler draws from numpy's global generator
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=components))
    sampler.fit(images)
    found = sampler.gmm
    weights, means, covariances = (torch.tensor(v) for v in (found.weights_, found.means_, found.covariances_))
    mixture = MixtureDensity(Parameters.of("full", weights, means, covariances))
    return Samples(mixture=mixture, z=torch.tensor(found.sample(SAMPLES)[0]).float(), fitted={})


def of_chosen_components(codes: Tensor, held_out: Tensor, numbers: Sequence[int], seed: int) -> Samples:
    """Draws of the mixture, fitted as those of our codes, under which held-out codes (n, D) are most likely."""
    fits = {count: GaussianMixture(count, random_state=seed).fit(codes) for count in numbers}
    nats = {count: float(fit.score(held_out)) for count, fit in fits.items()}
    best = fits[max(nats, key=lambda count: nats[count])]
    z = best.sample(SAMPLES, generator=torch.Generator().manual_seed(seed))[0]
    return Samples(mixture=best.density_, z=z.float(), fitted={"held_out_nats": nats})


@torch.inference_mode()
def codes_of(model: VAE | RAE_L2, images: Tensor) -> Tensor:
    """The means of the codes of images, (N, D) float64."""
    return torch.cat([model.encoder(part).embedding for part in images.split(512)]).double()


def transported(run: MeasuredRun, model: VAE | RAE_L2, samples: Samples, ranks: Ranks) -> Tensor:
    """The samples decoded and transported, (N, C, H, W) float32."""
    theirs = AsOurs(model, run.model)
    maps = fit_transport(dataclasses.replace(run, model=cast(SigmaVAE, theirs)), samples.mixture, ranks).transport
    with torch.inference_mode():
        return torch.cat([maps.apply(part, theirs.decode(part).mean) for part in samples.z.split(BLOCK)])


def epochs_of(run: MeasuredRun) -> int:
    """Epochs that both stages of the run took together, rounded."""
    images = read_events(run.folder)[-1]["images"]
    return max(1, round(images / run.manifest.num_samples(run.config.data.train_split)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a finished run of ours")
    parser.add_argument("--model", required=True, choices=tuple(MODELS), help="pythae's model")
    parser.add_argument("--components", type=int, nargs="*", default=[10, 32], help="sizes of its mixture sampler")
    parser.add_argument("--choose", type=int, nargs="+", default=[], help="sizes among which held-out codes choose")
    parser.add_argument("--extractors", nargs="+", default=["efficientnet-lite0"], help="of the distances")
    parser.add_argument("--epochs", type=int, help="epochs of pythae's training; as many as RUN took")
    parser.add_argument("--seed", type=int, default=0, help="seed of its training and samples")
    args = parser.parse_args()
    with process_group("cpu") as ranks:
        run = load_run(args.run, "final", ranks.device)
        epochs = args.epochs or epochs_of(run)
        images = images_of(run, run.config.data.train_split)
        model = trained(args.model, run, images, epochs, args.seed)
        drawn = [of_its_own_sampler(model, images, count, args.seed) for count in args.components]
        if args.choose:
            held_out = codes_of(model, images_of(run, run.config.data.valid_split))
            drawn.append(of_chosen_components(codes_of(model, images), held_out, args.choose, args.seed))
        for samples in drawn:
            moved = transported(run, model, samples, ranks)
            with torch.inference_mode():
                plain = torch.cat([model.decoder(part).reconstruction for part in samples.z.split(BLOCK)])
            for name in args.extractors:
                extractor = extractor_by_name(name, ranks.device)
                reference = reference_statistics(run.config.data.location, run.manifest, "test", extractor, ranks)
                distance, of_moved = (
                    distance_of(made, extractor, reference, title, ranks)
                    for made, title in ((plain, args.model), (moved, f"{args.model}, transported"))
                )
                if not math.isfinite(distance):
                    raise InputError(f"{args.model}: its samples have no finite distance")
                result = {
                    "model": args.model,
                    "components": samples.mixture.parameters.n_components,
                    **samples.fitted,
                    "epochs": epochs,
                    "seed": args.seed,
                    "samples": SAMPLES,
                    "reference": "test",
                    "extractor": dict(extractor.description),
                    "frechet_distance": distance,
                    "carried_frechet_distance": of_moved,
                }
                write_json(Path(args.run) / "eval" / file_name(result, name), result)
                print(json.dumps(result), flush=True)


def file_name(result: dict[str, object], extractor: str) -> str:
    """Where a result lies. `eval reproduce` reads pythae-*: its own sampler, by the first extractor."""
    name = f"{result['model']}-{result['components']}-seed{result['seed']}"
    if "held_out_nats" in result:
        return f"chosen-pythae-{name}-{extractor}.json"
    return f"pythae-{name}.json" if extractor == "efficientnet-lite0" else f"also-pythae-{name}-{extractor}.json"


if __name__ == "__main__":
    command(main)
