"""The one picture of a run: samples and how sure the model is of each of their pixels."""

import io

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from eval.report.gallery import deviation
from eval.report.pictures import grid, heat, scale_of, to_rgb
from eval.report.style import INK
from eval.transport.transport import Transport
from trainer.networks.model import SigmaVAE

SIDE = 6


@torch.no_grad()
def overview(model: SigmaVAE, latents: Tensor, name: str, transport: Transport | None) -> bytes:
    """SIDE x SIDE samples, the same carried where there is a transport, and their sigma_k(z) with its scale, as PNG.

    latents: (SIDE^2, D).
    """
    decoded = model.decode(latents)
    sigma = deviation(decoded)
    floor = model.variance_floor.item() ** 0.5 if model.per_pixel else 0.0
    scale = scale_of(sigma, darkest=floor)
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
