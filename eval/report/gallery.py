"""The pictures of a run as PNG files: images in rows and columns, variance maps in colour, walks between latents."""

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from eval.images.transport import Transport
from eval.report.charts import INK
from eval.report.document import Scale
from trainer.networks.model import Likelihood, SigmaVAE

COLUMNS = 10
SIDE = 6
"""Rows and columns of the overview."""
_GAP = 2
_PAPER = 255


def to_rgb(images: Tensor) -> Tensor:
    """Images (..., 1 or 3, H, W) in [0, 1] to uint8 (..., 3, H, W)."""
    bright = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return bright.expand(*bright.shape[:-3], 3, *bright.shape[-2:])


def heat(values: Tensor, scale: Scale) -> Tensor:
    """A map (..., C, H, W) in colour, dark to bright: uint8 (..., 3, H, W). Channels are shown by their mean."""
    low, high = scale
    scaled = ((values.mean(-3) - low) / max(high - low, 1e-9)).clamp(0, 1).cpu().numpy()  # (..., H, W)
    coloured = colormaps["magma"](scaled)[..., :3]  # (..., H, W, 3)
    return torch.from_numpy((coloured * 255).round().astype(np.uint8)).movedim(-1, -3)


def scale_of(*maps: Tensor, part: float = 0.995) -> Scale:
    """A common scale from 0 that a part of each map's values lies within, so that no single pixel darkens the rest."""
    return Scale(0.0, max(float(np.quantile(m.float().flatten().cpu().numpy(), part)) for m in maps))


@torch.no_grad()
def map_scale(model: SigmaVAE, images: Tensor, *latents: Tensor) -> Scale:
    """The scale of a page's maps: errors and deviations of images (B, C, H, W), deviations of latents (n, D)."""
    decoded = model.decode(model.encode(images).mean)
    sampled = (deviation(model.decode(z)) for z in latents)
    # Errors scatter more than the deviations that predict them; where they are largest they may exceed the scale.
    errors = scale_of((images - decoded.mean).abs(), part=0.95)
    return max(errors, scale_of(deviation(decoded), *sampled))


def grid(rows: list[Tensor], *, enlarge: int) -> NDArray[np.uint8]:
    """Rows of uint8 images (columns, 3, H, W), each pixel drawn enlarge x enlarge: (height, width, 3)."""
    lines = []
    for row in rows:
        large = row.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2).cpu()
        lines.append(torch.cat([F.pad(image, (_GAP,) * 4, value=_PAPER) for image in large], dim=2))
    return torch.cat(lines, dim=1).permute(1, 2, 0).contiguous().numpy()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB picture (height, width, 3) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def enlargement(side: int) -> int:
    """Screen pixels for an image pixel, so that small images are not specks."""
    return max(1, round(84 / side))


def deviation(decoded: Likelihood) -> Tensor:
    """sigma_k(z) of each pixel, (B, C, H, W); the same everywhere in stage 1."""
    return decoded.variance.expand_as(decoded.mean).sqrt()


# Figure 3 of the paper, with the error beside the variance that should predict it.
@torch.no_grad()
def reconstructions(model: SigmaVAE, images: Tensor, scale: Scale) -> bytes:
    """Four rows: images (B, C, H, W) in [0, 1], reconstructions g(mu(x)), |x - g|, sigma_k."""
    decoded = model.decode(model.encode(images).mean)
    error, sigma = (images - decoded.mean).abs(), deviation(decoded)
    rows = [to_rgb(images), to_rgb(decoded.mean), heat(error, scale), heat(sigma, scale)]
    return png(grid(rows, enlarge=enlargement(images.shape[-1])))


@torch.no_grad()
def square_errors(model: SigmaVAE, images: Tensor) -> Tensor:
    """Mean squared error a pixel of each image's reconstruction, (B,)."""
    return (images - model.decode(model.encode(images).mean).mean).square().flatten(1).mean(1)


def images(shown: Tensor) -> bytes:
    """Rows of COLUMNS images (n, C, H, W), cut to [0, 1]."""
    rows = list(to_rgb(shown.clamp(0, 1)).split(COLUMNS))
    return png(grid(rows, enlarge=enlargement(shown.shape[-1])))


def completions(shown: Tensor) -> bytes:
    """Rows of images, of their visible parts, and by method of completed images and deviations in colour.

    shown: (2 + 2 methods, n, C, H, W) in [0, 1].
    """
    scale = scale_of(*shown[3::2])
    rows = [to_rgb(row) if place < 2 or place % 2 == 0 else heat(row, scale) for place, row in enumerate(shown)]
    return png(grid(rows, enlarge=enlargement(shown.shape[-1])))


# Figures 2b and 4 of the paper.
@torch.no_grad()
def samples(model: SigmaVAE, latents: Tensor, scale: Scale) -> bytes:
    """Rows of mean images g(z), each followed by a row of sigma_k(z). latents: (n, D), n a multiple of COLUMNS."""
    decoded = model.decode(latents)
    rows: list[Tensor] = []
    maps = heat(deviation(decoded), scale)
    for image, spread in zip(to_rgb(decoded.mean).split(COLUMNS), maps.split(COLUMNS), strict=True):
        rows += [image, spread]
    return png(grid(rows, enlarge=enlargement(decoded.mean.shape[-1])))


@torch.no_grad()
def traversals(model: SigmaVAE, means: Tensor, *, rows: int = 8, reach: float = 2.5) -> tuple[bytes, list[int]]:
    """One latent dimension a row, moved through the codes' own range while the others stay at an image's code.

    means: posterior means of images, (N, D); the first is where the others stay. The `rows` dimensions that vary most
    over images are shown, from `reach` standard deviations below their mean to as many above. Returns also which.
    """
    centre, spread = means.mean(0), means.std(0, correction=min(1, len(means) - 1))
    shown = spread.argsort(descending=True)[:rows].tolist()
    steps = torch.linspace(-reach, reach, COLUMNS, device=means.device)
    lines = []
    for dimension in shown:
        z = means[:1].repeat(COLUMNS, 1)  # (COLUMNS, D)
        z[:, dimension] = centre[dimension] + steps * spread[dimension]
        lines.append(to_rgb(model.decode(z).mean))
    return png(grid(lines, enlarge=enlargement(model.image_shape[-1]))), shown


@torch.no_grad()
def interpolations(model: SigmaVAE, means: Tensor, transport: Transport | None = None, *, rows: int = 5) -> bytes:
    """Straight lines between the codes of two images, one pair a row, up to `rows`. means: (at least 2, D).

    transport: whose walk is drawn; without one, mean images are.
    """
    rows = min(rows, len(means) // 2)
    steps = torch.linspace(0, 1, COLUMNS, device=means.device)[:, None]
    lines = []
    for start, end in means[: 2 * rows].reshape(rows, 2, 1, -1):
        z = torch.lerp(start, end, steps)
        drawn = model.decode(z).mean
        lines.append(to_rgb(transport.walk(z, drawn) if transport is not None else drawn))
    return png(grid(lines, enlarge=enlargement(model.image_shape[-1])))


def neighbours(sampled: Tensor, nearest: Sequence[Tensor]) -> bytes:
    """Samples in the first row, below each its nearest training images; all rows (n, C, H, W) uint8."""
    rows = [to_rgb(row.float() / 255) for row in (sampled, *nearest)]
    return png(grid(rows, enlarge=enlargement(sampled.shape[-1])))


@torch.no_grad()
def overview(model: SigmaVAE, latents: Tensor, name: str, transport: Transport | None) -> bytes:
    """SIDE x SIDE samples, the same transported where a transport is given, and their sigma_k(z), as PNG.

    latents: (SIDE^2, D).
    """
    decoded = model.decode(latents)
    sigma = deviation(decoded)
    # A picture of its own: the darkest colour is the smallest deviation that the model can have.
    floor = model.variance_floor.item() ** 0.5 if model.per_pixel else 0.0
    scale = Scale(floor, max(scale_of(sigma).brightest, floor))
    panels = {f"{name}: samples from q_hat": to_rgb(decoded.mean)}
    if transport is not None:
        panels["transported to the distribution of real images"] = to_rgb(
            transport.apply(latents, decoded.mean).clamp(0, 1)
        )
    panels["their uncertainty, sigma of each pixel"] = heat(sigma, scale)
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 10, "text.color": INK}):
        made = Figure(figsize=(4.6 * len(panels) + 0.4, 4.9), layout="constrained")
        places = made.subplots(1, len(panels))
        for axes, (title, panel) in zip(places, panels.items(), strict=True):
            axes.imshow(np.asarray(grid(list(panel.split(SIDE)), enlarge=2)), interpolation="nearest")
            axes.set_title(title, fontsize=11, loc="left")
            axes.set_axis_off()
        made.colorbar(ScalarMappable(Normalize(*scale), "magma"), ax=places[-1], shrink=0.75, pad=0.02)
        buffer = io.BytesIO()
        made.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
