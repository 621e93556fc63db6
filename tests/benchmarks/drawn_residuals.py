"""Whether samples with drawn residuals are nearer to real images than mean images are.

    python tests/benchmarks/drawn_residuals.py --run runs/demo

After `python -m eval residuals --run RUN`. Prints the distance of 10,000 samples to the test images: of mean images
g(z), z from the mixture, and of the same with a residual that the likelihood expects, of independent and of correlated
pixels.
"""

import argparse
import sys
from pathlib import Path

import torch
from image_distance import distance_of

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.errors import command  # noqa: E402
from eval.distance.extractors.by_name import extractor_by_name  # noqa: E402
from eval.distance.features import reference_statistics  # noqa: E402
from eval.images.blocks import BLOCK  # noqa: E402
from eval.questions import ResidualsQuestion  # noqa: E402
from eval.residuals.stored import load_noise  # noqa: E402
from eval.run import load_run  # noqa: E402
from trainer.process_group import single  # noqa: E402

SAMPLES = 10_000


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run with a mixture and fitted residuals")
    parser.add_argument("--mixture", type=int, default=32, help="components of the mixture")
    args = parser.parse_args()
    run, ranks = load_run(args.run, "final"), single()
    extractor = extractor_by_name("efficientnet-lite0", ranks.device)
    reference = reference_statistics(run.config.data.location, run.manifest, "test", extractor, ranks)
    noise = load_noise(run, ResidualsQuestion(), ranks)
    generator = torch.Generator().manual_seed(0)
    z = run.mixture(args.mixture, "full").sample(SAMPLES, generator).float()
    kinds: dict[str, list[torch.Tensor]] = {"mean images": [], "independent pixels": [], "correlated pixels": []}
    for part in z.split(BLOCK):
        output = run.model.decode(part)
        independent = output.variance.sqrt() * torch.randn(output.mean.shape, generator=generator)
        correlated = noise.draw(part, output, generator).float()
        for images, residual in zip(kinds.values(), (0.0, independent, correlated), strict=True):
            images.append(output.mean + residual)
    for title, images in kinds.items():
        print(f"{title:20} {distance_of(torch.cat(images), extractor, reference, title, ranks):.1f}", flush=True)


if __name__ == "__main__":
    command(main)
