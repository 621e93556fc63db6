"""How fast this machine goes through the networks, measured on one block of images each."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from eval.distance.extractors.by_name import extractor_by_name
from eval.images.blocks import BLOCK
from eval.run import MeasuredRun
from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds that one image costs the whole job, all processes together."""

    encode: float
    """Through the encoder."""
    decode: float
    """Through the decoder."""
    extract: float
    """Through the feature extractor of distances."""
    processes: int


@torch.inference_mode()
def measure_pace(run: MeasuredRun, extractor: str, ranks: Ranks) -> Pace:
    """The pace of the first process, given to all."""
    model = run.model
    images = torch.rand(BLOCK, *model.image_shape, device=ranks.device)
    latents = torch.randn(BLOCK, model.latent_dim, device=ranks.device)
    network = extractor_by_name(extractor, ranks.device)
    pixels = (images.cpu() * 255).to(torch.uint8)
    calls: tuple[Callable[[], object], ...] = (
        lambda: model.encode(images).mean.cpu(),
        lambda: model.decode(latents).mean.cpu(),
        lambda: network(pixels).cpu(),
    )
    seconds = torch.tensor([_seconds(call) if ranks.is_main else 0.0 for call in calls], device=ranks.device)
    encode, decode, extract = (ranks.sum_(seconds) / (BLOCK * ranks.world_size)).tolist()
    return Pace(encode=encode, decode=decode, extract=extract, processes=ranks.world_size)


def _seconds(call: Callable[[], object]) -> float:
    """The time of a second call; the first one allocates."""
    call()
    began = time.monotonic()
    call()
    return time.monotonic() - began
