"""Log-densities over a latent space of two dimensions, as in Table 1 of the paper."""

import math
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from eval.report.style import STYLE, png, svg
from trainer.objectives.gaussian import log_normal, log_prior
from trainer.run_folder.latents import Latents

_SIDE = 90
_CODES = 5000
_DEPTH = 12.0


# Equation 11.
def log_aggregate_posterior(z: Tensor, codes: Latents) -> Tensor:
    """log q(z) = log 1/N sum_i q(z|x_i) for z (M, D) and the posteriors of N images. Returns (M,), float64."""
    mean, std = codes.mean.double(), codes.std.double()
    parts = [torch.logsumexp(log_normal(part[:, None], mean, std), dim=1) for part in z.double().split(100)]
    return torch.cat(parts) - math.log(len(mean))


def density_figure(codes: Latents, log_mixture: Callable[[Tensor], Tensor] | None) -> bytes:
    """Aggregate posterior, its mixture where there is one, and the prior, as an SVG file. codes: D = 2."""
    with mpl.rc_context(STYLE):
        return svg(_drawn(codes, log_mixture))


def density_png(codes: Latents, log_mixture: Callable[[Tensor], Tensor] | None) -> bytes:
    """The same as a PNG file."""
    with mpl.rc_context(STYLE):
        return png(_drawn(codes, log_mixture))


def _drawn(codes: Latents, log_mixture: Callable[[Tensor], Tensor] | None) -> Figure:
    """The densities side by side, on one colour scale."""
    step = max(1, len(codes.index) // _CODES)
    thinned = Latents(*(part[::step] for part in codes))
    reach = max(3.5, float(codes.mean.abs().max()) + 0.5)
    axis = torch.linspace(-reach, reach, _SIDE, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    panels = {"aggregate posterior q(z)": log_aggregate_posterior(z, thinned)}
    if log_mixture is not None:
        panels["its mixture q_hat(z)"] = torch.as_tensor(log_mixture(z.float())).double()
    panels["prior p(z)"] = log_prior(z)
    top = max(float(values.max()) for values in panels.values())
    made = Figure(figsize=(3 * len(panels) + 0.6, 3.1), layout="constrained")
    drawn = made.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(drawn, panels.items(), strict=True):
        image = axes.imshow(
            np.asarray(values.reshape(_SIDE, _SIDE)),
            extent=(-reach, reach, -reach, reach),
            origin="lower",
            cmap="viridis",
            vmin=top - _DEPTH,
            vmax=top,
        )
        axes.set_title(title)
        axes.grid(visible=False)
    made.colorbar(image, ax=drawn, shrink=0.85, label="log-density, nats")
    return made
