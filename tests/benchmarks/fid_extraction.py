"""Images per second from 8-bit pixels to summed statistics, against the bare extractor and against clean-fid's loop.

    OMP_NUM_THREADS=1 python tests/benchmarks/fid_extraction.py

The floor is the network alone on tensors that are ready: resized, three channels, in blocks of the same size. Rounds of
the three are interleaved and the medians of the ratios within a round are printed; times are CPU seconds, all of it in
one thread of one process. Inception-v3 has random weights here: they change features, not times. Required: at least
0.95 of the bare extractor.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from cleanfid.fid import get_model_features
from cleanfid.resize import make_resizer
from torch import nn
from torchvision.models import inception_v3

from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.extractor import Extractor
from eval.distance.features import extract
from eval.images.blocks import BLOCK, block_ids
from trainer.process_group import single

ROUNDS = 5


def inception_like(device: torch.device) -> nn.Module:
    """Inception-v3 with random weights: the time does not depend on their values."""
    network = inception_v3(weights=None, init_weights=False, aux_logits=False).to(device).eval()
    network.fc, network.dropout = nn.Identity(), nn.Identity()
    return network


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(extractor: Extractor, *, size: int, channels: int, side: int, n: int) -> None:
    """Prints the rates for n images of channels x side x side; size: what the network is given."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8))
    ready = extractor.resize(images.float()).expand(-1, 3, -1, -1).contiguous().split(BLOCK)

    @torch.inference_mode()
    def bare() -> None:
        for block in ready:
            extractor.network(block)

    def ours() -> None:
        def source(blocks: range):
            return ((block_ids(block, n), images[block_ids(block, n)]) for block in blocks)

        extract(source, extractor, single(), n=n, title="", protocol={})

    def clean_fid() -> None:
        colour, position = images.expand(-1, 3, -1, -1), iter(range(0, n, BLOCK))

        def generator(z: torch.Tensor) -> torch.Tensor:
            start = next(position)
            return colour[start : start + BLOCK]

        get_model_features(
            generator,
            extractor.network,
            num_gen=n,
            batch_size=BLOCK,
            device=torch.device("cpu"),
            verbose=False,
            custom_fn_resize=make_resizer("PIL", False, "bicubic", (size, size)),
        )

    rounds = [[seconds(work) for work in (bare, ours, clean_fid)] for _ in range(ROUNDS)]
    floor = statistics.median(first for first, _, _ in rounds)
    own, theirs = (statistics.median(row[0] / row[column] for row in rounds) for column in (1, 2))
    print(
        f"{extractor.label:34} {channels} x {side} x {side}: bare {n / floor:7.1f} images/s, "
        f"ours {own:.3f} of it, clean-fid's loop {theirs:.3f} of it",
        flush=True,
    )


def main() -> None:
    cpu = torch.device("cpu")
    lite = extractor_by_name("efficientnet-lite0", cpu)
    compare(lite, size=64, channels=1, side=28, n=1024)
    compare(lite, size=64, channels=3, side=64, n=1024)
    large = extractor_by_name("fid_extraction:inception_like", cpu, size=299)
    compare(large, size=299, channels=3, side=64, n=BLOCK)


if __name__ == "__main__":
    main()
