"""Whether other maps from mean images to real ones make nearer samples than `python -m eval transport` does.

    python tests/benchmarks/transport_ideas.py --run runs/demo --mixture 32 --ideas component haar patches

Each idea is fitted to the training images alone and is a function of the latents, as the transport is:

component         the transport itself: a linear map in all pixels for each component;
responsibilities  the maps of all components, each weighed by its responsibility for z, as walks have them;
haar              a map for each band of a Haar basis of two levels: more components have covariances of their own;
patches           a map for each patch of 7 x 7 pixels, for the same reason;
marginals-R       the transport, then R rounds in which each coefficient, in turn of the Haar basis, of pixels and of
                  the Haar basis shifted by one pixel, gets the distribution of real images' (a monotone map).

Prints the distance of 10,000 samples to the test images by each extractor, of final weights; a line of JSON an idea,
which is also written to RUN/eval for idea_tables.py.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from image_bases import haar_bands, patch_bands
from image_distance import distances_to_test, latents_of_samples
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.atomic import write_json  # noqa: E402
from data_shards.io.errors import InputError, command  # noqa: E402
from eval.images.blocks import BLOCK, image_noise, subset_blocks, subset_indices  # noqa: E402
from eval.images.marginals import fit_marginals  # noqa: E402
from eval.images.optimal_map import MomentSums, optimal_maps  # noqa: E402
from eval.images.sources import block_latents, mixture_sampler  # noqa: E402
from eval.images.stored_transport import load_transport, make_transport  # noqa: E402
from eval.run import MeasuredRun, load_run  # noqa: E402
from trainer.mixture.density import MixtureDensity  # noqa: E402
from trainer.process_group import single  # noqa: E402

Map = Callable[[Tensor, Tensor], Tensor]
"""Latents (n, D) and their mean images (n, d) to the images that are taken in their place (n, d)."""


class Data:
    """Training images with a code of each, and as many samples of the mixture with their mean images."""

    @torch.inference_mode()
    def __init__(self, run: MeasuredRun, mixture: MixtureDensity) -> None:
        n = run.manifest.num_samples("train")
        images, codes, square = [], [], 0.0
        for _, index, x in subset_blocks(
            run.config.data.location, "train", subset_indices(run.manifest, "train", n), single()
        ):
            q = run.model.encode(x)
            z = q.mean + q.std * image_noise(0, index.tolist(), 1, run.model.latent_dim)[0]
            square += float((run.model.decode(z).mean - x).double().square().sum())
            images.append(x.flatten(1))
            codes.append(z)
        self.real, self.codes = torch.cat(images), torch.cat(codes)
        self.ridge = square / self.real.numel() / 2
        sampler = mixture_sampler(mixture.parameters)
        self.z = torch.cat([block_latents(sampler, 1, block) for block in range(-(-n // BLOCK))])[:n]
        self.made = torch.cat([run.model.decode(part).mean.flatten(1) for part in self.z.split(BLOCK)])


def in_bands(data: Data, mixture: MixtureDensity, basis: Tensor, bands: Sequence[Tensor]) -> Map:
    """A linear map for each component and band, of the components that have as many images as half of its numbers."""
    of_real, of_made = mixture.predict(data.codes), mixture.predict(data.z)
    maps = []
    for band in bands:
        columns = basis[:, band].float()
        own = mixture.weights * len(data.real) >= len(band) / 2
        group = torch.where(own, own.cumsum(0) - int(own.all()), 0)
        real, made = MomentSums(group, len(band)), MomentSums(group, len(band))
        real.add((data.real @ columns).double(), of_real)
        made.add((data.made @ columns).double(), of_made)
        target, source = real.moments(single()), made.moments(single())
        ridge = data.ridge * torch.eye(len(band), dtype=torch.float64)
        linear = optimal_maps(source.covariance + ridge, target.covariance)
        maps.append((columns, linear[group], source.mean.float(), target.mean.float()))

    def apply(z: Tensor, images: Tensor) -> Tensor:
        component, moved = mixture.predict(z), torch.zeros_like(images)
        for columns, linear, source, target in maps:
            centred = images @ columns - source[component]
            new = torch.einsum("nij,nj->ni", linear[component], centred) + target[component]
            moved += new @ columns.T
        return moved

    return apply


def with_marginals(data: Data, first: Map, shape: tuple[int, ...], rounds: int) -> Map:
    """A map, then the rounds of `python -m eval transport --rounds`, fitted to all training images in their order."""
    moved = torch.cat([first(z, g) for z, g in zip(data.z.split(1024), data.made.split(1024), strict=True)])
    marginals = fit_marginals(data.real.view(-1, *shape), moved.view(-1, *shape), rounds)

    def apply(z: Tensor, images: Tensor) -> Tensor:
        return marginals.apply(first(z, images).view(-1, *shape)).flatten(1)

    return apply


def fitted(idea: str, run: MeasuredRun, components: int, data: Callable[[], Data]) -> Map:
    """The map of an idea. Raises InputError for an unknown one."""
    mixture, (_, side, _) = run.mixture(components, "full"), run.model.image_shape
    if idea in ("haar", "patches"):
        return in_bands(data(), mixture, *(haar_bands if idea == "haar" else patch_bands)(side))
    make_transport(run, components, "full", single())
    transport = load_transport(run, components, "full")
    chosen = transport.walk if idea == "responsibilities" else transport.apply

    def linear(z: Tensor, images: Tensor) -> Tensor:
        return chosen(z, images.view(-1, *run.model.image_shape)).flatten(1)

    if idea in ("component", "responsibilities"):
        return linear
    kind, _, rounds = idea.partition("-")
    if kind != "marginals" or not rounds.isdecimal():
        raise InputError(f"{idea} is unknown; see --help", parameter="ideas")
    return with_marginals(data(), linear, run.model.image_shape, int(rounds))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run of grey images of 28 x 28 with a mixture")
    parser.add_argument("--mixture", type=int, default=32, help="components of the mixture")
    parser.add_argument("--ideas", nargs="+", default=["component"], help="see above")
    parser.add_argument("--extractors", nargs="+", default=["efficientnet-lite0", "efficientnet-lite2"])
    args = parser.parse_args()
    run, ranks = load_run(args.run, "final"), single()
    z = latents_of_samples(run, args.mixture)
    images = torch.cat([run.model.decode(part).mean.flatten(1) for part in z.split(BLOCK)])
    known: list[Data] = []

    def data() -> Data:
        known.extend([] if known else [Data(run, run.mixture(args.mixture, "full"))])
        return known[0]

    for idea in args.ideas:
        move = fitted(idea, run, args.mixture, data)
        moved = torch.cat([move(*part) for part in zip(z.split(1024), images.split(1024), strict=True)])
        made = moved.view(-1, *run.model.image_shape).clamp(0, 1)
        found = {"idea": idea, "components": args.mixture}
        found |= distances_to_test(run, made, args.extractors, idea, ranks)
        write_json(run.folder / "eval" / f"idea-{idea}-{args.mixture}.json", found)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    command(main)
