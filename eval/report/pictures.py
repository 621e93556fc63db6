"""Images in rows and columns, and variance maps in colour, as PNG."""

import io
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_GAP = 2
_PAPER = 255


def to_rgb(images: Tensor) -> Tensor:
    """Images (..., 1 or 3, H, W) in [0, 1] to uint8 (..., 3, H, W)."""
    bright = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return bright.expand(*bright.shape[:-3], 3, *bright.shape[-2:])


class Scale(NamedTuple):
    """The values that a map draws darkest and brightest."""

    darkest: float
    brightest: float


def heat(values: Tensor, scale: Scale) -> Tensor:
    """A map (..., C, H, W) in colour, dark to bright: uint8 (..., 3, H, W). Channels are shown by their mean."""
    low, high = scale
    scaled = ((values.mean(-3) - low) / max(high - low, 1e-9)).clamp(0, 1).cpu().numpy()  # (..., H, W)
    coloured = colormaps["magma"](scaled)[..., :3]  # (..., H, W, 3)
    return torch.from_numpy((coloured * 255).round().astype(np.uint8)).movedim(-1, -3)


def scale_of(*maps: Tensor, darkest: float) -> Scale:
    """A common scale. One pixel in 200 lies above its brightest value, so that no single one darkens the rest."""
    values = torch.cat([m.float().flatten() for m in maps]).cpu().numpy()
    return Scale(darkest, max(float(np.quantile(values, 0.995)), darkest))


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
