"""Walks through the latent space, as one picture with a row each, and as an animation of all of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError, at_least
from eval.export.animation import ANIMATIONS, frames
from eval.export.output_folder import made_before, output_folder
from eval.image_sets.image_set import ImageSet
from eval.image_sets.run_samples import Drawn, Sampling, drawn_from
from eval.images.blocks import BLOCK, evenly_spaced
from eval.images.sources import block_latents, require_finite
from eval.report.gallery import enlargement, grid, png, to_rgb
from eval.run import MeasuredRun
from trainer.process_group import Ranks

_REACH = 2.5
"""Standard deviations of the codes, to both sides, that a traversal covers."""
_CODES = 512
"""Images whose codes say how far a latent ranges, and which ones vary."""


_MOST = 10_000
"""Images of all walks together, which one picture holds."""


def require_size(rows: int, steps: int) -> None:
    """Raises InputError where there are no walks of so many steps, or more images than one picture should hold."""
    at_least(1, rows=rows)
    at_least(2, steps=steps)
    if rows * steps > _MOST:
        raise InputError(f"{rows:,} walks of {steps:,} images are more than {_MOST:,} images", parameter="steps")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A walk's latents and what they are made from."""

    z: Tensor
    """(rows, steps, D) float32."""
    identity: dict[str, Any]
    """What they depend on, for the record."""


def interpolation(latents: Tensor, *, steps: int, identity: dict[str, Any]) -> Walk:
    """Straight lines between neighbouring pairs of latents (2 rows, D), ends included."""
    ends = latents.reshape(-1, 2, 1, latents.shape[1])
    parts = torch.linspace(0, 1, steps)[:, None]
    return Walk(z=torch.lerp(ends[:, 0], ends[:, 1], parts), identity=identity | {"steps": steps})


def traversal(codes: Tensor, centre: Tensor, *, rows: int, steps: int, identity: dict[str, Any]) -> Walk:
    """One latent a row, the one whose posterior means vary most first, moved through the codes' range.

    codes: posterior means of images, (N, D); centre: where the other latents stay, (D,).
    """
    spread, mean = codes.std(0), codes.mean(0)
    dimensions = spread.argsort(descending=True)[:rows]
    z = centre.repeat(len(dimensions), steps, 1)
    for row, dimension in enumerate(dimensions.tolist()):
        z[row, :, dimension] = mean[dimension] + torch.linspace(-_REACH, _REACH, steps) * spread[dimension]
    return Walk(z=z, identity=identity | {"steps": steps, "dimensions": dimensions.tolist()})


def sampled_ends(run: MeasuredRun, sampling: Sampling, count: int) -> tuple[Tensor, dict[str, Any]]:
    """The first latents that `python -m eval sample` draws, (count, D), and what they depend on."""
    drawn = drawn_from(run, sampling)
    blocks = range(-(-count // BLOCK))
    latents = torch.cat([block_latents(drawn.sampler, sampling.seed, block) for block in blocks])[:count]
    return latents, drawn.identity(run, sampling, count)


@torch.inference_mode()
def codes_of(run: MeasuredRun, images: ImageSet) -> Tensor:
    """The posterior means of all images of a set made by the run's recipe, (n, D) float32 on the CPU."""
    device = next(run.model.parameters()).device
    means = []
    for _, found in images.images(range(-(-images.n // BLOCK))):
        pixels = found if isinstance(found, Tensor) else torch.stack(list(found))
        means.append(run.model.encode(pixels.to(device).float() / 255).mean.cpu())
    if not means:
        raise InputError(f"{images.name}: none of its images can be read")
    return torch.cat(means)


def typical_codes(run: MeasuredRun) -> tuple[Tensor, str]:
    """Posterior means of up to 512 training images, evenly spaced, (N, D), and which split they are of.

    Raises InputError where the run's images were not encoded.
    """
    split = run.config.data.train_split
    codes = run.codes(split).mean
    return codes[torch.from_numpy(evenly_spaced(min(_CODES, len(codes)), len(codes)))], split


@torch.inference_mode()
def write_walk(
    run: MeasuredRun,
    walk: Walk,
    drawn: Drawn | None,
    out: Path,
    ranks: Ranks,
    *,
    animation: str = "gif",
    steal: bool = False,
) -> bool:
    """Writes walk.png, walk.gif and latents.safetensors into `out`; False where they are there already.

    drawn: whose `finish` is applied to mean images, None for mean images themselves; animation: one of ANIMATIONS, of
    which the file is. Raises InputError where `out` holds anything that was not made here.
    """
    question = {"walk": walk.identity, "checkpoint": run.checkpoint, "shape": list(walk.z.shape)}
    question |= {"animation": animation} if animation != "gif" else {}
    if ranks.any(ranks.agree(lambda: ranks.is_main and made_before(out, question) is not None)):
        return False
    with output_folder(out, question, ranks, steal=steal) as folder:
        if ranks.is_main:
            rows = [to_rgb(_images(run, row, drawn, ranks)) for row in walk.z]  # (steps, 3, H, W) each
            enlarge = enlargement(run.model.image_shape[-1])
            atomic.write_bytes(folder / "walk.png", png(grid(rows, enlarge=enlarge)))
            atomic.write_bytes(folder / f"walk.{animation}", ANIMATIONS[animation](frames(rows, enlarge=enlarge)))
            atomic.write_bytes(folder / "latents.safetensors", save({"z": walk.z.contiguous()}))
    return True


def _images(run: MeasuredRun, z: Tensor, drawn: Drawn | None, ranks: Ranks) -> Tensor:
    z = z.to(ranks.device)
    images = run.model.decode(z).mean
    return require_finite(images if drawn is None else drawn.walk(z, images)).clamp(0, 1)
