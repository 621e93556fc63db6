"""Latents per second from q_hat with 10,000 full components in 64-D, against the images per second of a decoder.

    OMP_NUM_THREADS=1 python tests/benchmarks/fid_sampler.py

The decoder is that of trainer/configs/celeba_small.yaml, the smallest one for 64 x 64. Required: a sampler that is
faster than the decoder consumes.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from eval.images.blocks import BLOCK
from eval.images.sources import block_latents, mixture_sampler
from trainer.config.config import load_config
from trainer.mixture.packed import packed_size
from trainer.mixture.parameters import Parameters, pack_covariances
from trainer.networks.model import SigmaVAE

COMPONENTS, DIM, BLOCKS, REPEATS = 10_000, 64, 10, 3
CONFIG = Path(__file__).parents[2] / "trainer" / "configs" / "celeba_small.yaml"


def mixture() -> Parameters:
    """Components of equal weight with random covariances."""
    generator = torch.Generator().manual_seed(0)
    covariances = torch.empty(COMPONENTS, packed_size(DIM), dtype=torch.float64)
    for rows in torch.arange(COMPONENTS).split(500):
        factors = torch.randn(len(rows), DIM, DIM, dtype=torch.float64, generator=generator) / DIM**0.5
        covariances[rows] = pack_covariances("full", factors @ factors.mT + 0.1 * torch.eye(DIM, dtype=torch.float64))
    return Parameters(
        covariance_type="full",
        weights=torch.full((COMPONENTS,), 1 / COMPONENTS, dtype=torch.float64),
        means=torch.randn(COMPONENTS, DIM, dtype=torch.float64, generator=generator),
        covariances=covariances,
    )


def rate(work: Callable[[int], object]) -> float:
    """Images per second of work(block), the best of REPEATS rounds of BLOCKS blocks."""
    best = 0.0
    for _ in range(REPEATS):
        began = time.perf_counter()
        for block in range(BLOCKS):
            work(block)
        best = max(best, BLOCKS * BLOCK / (time.perf_counter() - began))
    return best


def main() -> None:
    sampler = mixture_sampler(mixture())
    model = SigmaVAE((3, 64, 64), load_config(CONFIG).model).eval()
    latents = torch.randn(BLOCK, DIM)
    with torch.inference_mode():
        drawn = rate(lambda block: block_latents(sampler, seed=0, block=block))
        decoded = rate(lambda block: model.decode(latents))
    print(
        f"q_hat {drawn:,.0f} latents/s, decoder {decoded:,.0f} images/s: {drawn / decoded:.1f} times what it consumes"
    )


if __name__ == "__main__":
    main()
