"""An extractor is known by what it does: the features of fixed images, computed twice and in other batches.

Names, source files and weight files do not say what a network computes: weights may be read from elsewhere, or drawn
anew at each start; a network in train mode gives an image other features in another batch. The last of these are
refused; the rest is distinguished by the probe.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from data_shards.io.errors import InputError

IMAGES, SIDE = 8, 48
# How far features of one image may differ between batches, relative to their size: rounding of sums in another order.
_TOLERANCE = 1e-3
_DIRECTIONS = 4


def probe_images() -> Tensor:
    """The fixed images, (IMAGES, 3, SIDE, SIDE) uint8: waves of several lengths, and noise."""
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    images = []
    for number in range(IMAGES):
        planes = [(column * (number + 1) + row * (channel + 1) * (number % 3 + 1)) % 256 for channel in range(3)]
        images.append(torch.stack(planes))
    generator = torch.Generator().manual_seed(0)
    images[-1] = torch.randint(0, 256, (3, SIDE, SIDE), generator=generator)
    return torch.stack(images).to(torch.uint8)


def require_eval_mode(network: object, name: str) -> None:
    """Raises InputError where a network, or a part of it, is in train mode."""
    if isinstance(network, nn.Module) and any(module.training for module in network.modules()):
        raise InputError(f"{name} is in train mode; return network.eval()", parameter="extractor")


def probe(features: Callable[[Tensor], Tensor], name: str, *, again: Callable[[Tensor], Tensor] | None = None) -> str:
    """What the features (B, d) of the fixed images (B, 3, SIDE, SIDE) are: their size, and their place along fixed
    directions, to thousandths, so that the rounding of another machine does not show.

    again: the extractor made a second time. Raises InputError where an image has other features there, or in another
    batch.
    """
    images = probe_images()
    whole = features(images).double().cpu()  # (IMAGES, d)
    scale = whole.square().mean().sqrt()
    if not bool(scale.isfinite()):
        raise InputError(f"{name} gives features that are not finite", parameter="extractor")
    halves = torch.cat([features(part).double().cpu() for part in images.split([3, IMAGES - 3])])
    if not _same(whole, halves, scale):
        raise InputError(
            f"{name} gives an image other features in another batch; it must treat every image by itself, without "
            "dropout or statistics of the batch (network.eval())",
            parameter="extractor",
        )
    if again is not None and not _same(whole, again(images).double().cpu(), scale):
        raise InputError(
            f"{name} gives other features each time it is made; load its weights from a file, or fix their seed",
            parameter="extractor",
        )
    generator = torch.Generator().manual_seed(0)
    directions = 2.0 * torch.randint(0, 2, (_DIRECTIONS, whole.numel()), generator=generator) - 1
    places = directions.double() @ whole.flatten() / whole.numel() ** 0.5 / scale.clamp_min(1e-300)
    return " ".join([f"{scale:.3e}", *(f"{round(float(place), 3) + 0.0:+.3f}" for place in places)])


def alike(found: str, known: str) -> bool:
    """Whether two results of `probe` are the same but for rounding."""
    if len(found.split()) != len(known.split()):
        return False
    pairs = zip(found.split(), known.split(), strict=True)
    return all(abs(float(ours) - float(theirs)) <= 2 * _TOLERANCE for ours, theirs in pairs)


def _same(a: Tensor, b: Tensor, scale: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * scale)
