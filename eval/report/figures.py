"""The figures of a run: training curves, calibration of the predicted variance, log-densities over two latents."""

import math
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from scipy import stats
from torch import Tensor

from eval.calibration import Coverage
from eval.report.charts import BLUE, GREEN, INK, MUTED, ORANGE, STYLE, figure, png, svg
from eval.results import UncertaintyResult
from trainer.objectives.gaussian import log_normal, log_prior
from trainer.run_folder.latents import Latents
from trainer.run_folder.log import Event

# Of the densities: points a side, posteriors at most, and nats from the brightest colour to the darkest.
_SIDE = 90
_CODES = 5000
_DEPTH = 12.0


def series(events: Sequence[Event], kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images seen and values of one number over the events of one kind; what was not finite is left out."""
    points = [(e["images"], e[name]) for e in events if e["event"] == kind and e.get(name) is not None]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def stage_switch(events: Sequence[Event]) -> int | None:
    """Images seen when stage 2 began; None where it has not."""
    return next((e["images"] for e in events if e["event"] == "stage_start" and e["stage"] == 2), None)


def _finish(axes: Axes, events: Sequence[Event], title: str) -> None:
    switch = stage_switch(events)
    if switch is not None:
        axes.axvline(switch, color=MUTED, linestyle=(0, (3, 2)), linewidth=1)
        axes.annotate(
            "stage 2",
            (switch, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            color=MUTED,
            fontsize=8,
        )
    axes.set_title(title)
    axes.set_xlabel("images seen")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(loc="best")


def _frame(axes: Axes, values: np.ndarray) -> None:
    """Keeps the first moments of training, which are lower by orders of magnitude, from flattening the rest."""
    best, middle = values.max(), np.median(values)
    spread = max(best - middle, 1e-3 * max(abs(best), 1.0))
    low = max(values.min(), best - 4 * spread)
    axes.set_ylim(low - 0.03 * (best - low), best + 0.08 * (best - low))


def rising_curve(events: Sequence[Event], name: str, title: str) -> bytes | None:
    """A number that training raises, in nats per image, on training batches and held out. None where none is logged."""
    train, valid = series(events, "train", name), series(events, "valid", name)
    values = np.concatenate([train[1], valid[1]])
    if not len(values):
        return None
    with figure() as (made, axes):
        axes.plot(*train, color=BLUE, alpha=0.75, label="training batches")
        axes.plot(*valid, color=ORANGE, marker="o", markersize=3, label="held out")
        axes.set_ylabel("nats per image")
        _frame(axes, values)
        _finish(axes, events, title)
        return svg(made)


def kl_curve(events: Sequence[Event]) -> bytes | None:
    """KL[q(z|x) || p(z)] over training. None where nothing is logged."""
    train, valid = series(events, "train", "kl"), series(events, "valid", "kl")
    if not len(train[1]) + len(valid[1]):
        return None
    with figure() as (made, axes):
        axes.plot(*train, color=BLUE, alpha=0.75, label="training batches")
        axes.plot(*valid, color=ORANGE, marker="o", markersize=3, label="held out")
        axes.set_ylabel("nats per image")
        _finish(axes, events, "KL[q(z|x) || p(z)]")
        return svg(made)


def variance_curve(events: Sequence[Event]) -> bytes | None:
    """sigma^2 of the data set, and beside it what equation 9 gives. None where nothing is logged."""
    used = series(events, "train", "sigma2")
    if not len(used[1]):
        return None
    with figure() as (made, axes):
        axes.plot(*series(events, "train", "closed_form_sigma2"), color=GREEN, alpha=0.7, label="equation 9, training")
        axes.plot(
            *series(events, "valid", "closed_form_sigma2"),
            color=ORANGE,
            marker="o",
            markersize=3,
            label="equation 9, held out",
        )
        axes.plot(*used, color=BLUE, linewidth=1.8, label="sigma² in use")
        axes.set_yscale("log")
        axes.set_ylabel("squared pixel units, [0, 1] scale")
        _finish(axes, events, "Variance of the data set")
        return svg(made)


def coverage_figure(result: UncertaintyResult) -> bytes:
    """How many pixels the predicted intervals hold, against how many they promise."""
    levels = [point.level for point in result.coverage]
    with figure() as (made, axes):
        axes.plot([0.4, 1], [0.4, 1], color=MUTED, linestyle="--", linewidth=1, label="calibrated")
        axes.plot(levels, [point.value for point in result.coverage], color=BLUE, marker="o", label="all pixels")
        if result.upper_half:
            held = [point.value for point in result.upper_half.coverage]
            axes.plot(levels, held, color=ORANGE, marker="o", label="the more uncertain half")
        axes.set_xlabel("nominal")
        axes.set_ylabel("held")
        axes.set_title("Predicted intervals")
        axes.legend(loc="lower right")
        return svg(made)


def region_figure(result: UncertaintyResult, level: float = 0.9) -> bytes:
    """How many means over regions the intervals of one level hold, by each kind of interval that was measured."""
    names = [f"{one.side} x {one.side}" if one.side else "whole image" for one in result.regions]
    lines = [
        ("independent pixels", ORANGE, [one.independent for one in result.regions]),
        ("correlated pixels", BLUE, [one.correlated for one in result.regions]),
        ("calibrated", INK, [one.calibrated for one in result.regions]),
    ]

    def held(points: Sequence[Coverage]) -> list[float]:
        return [point.value for point in points if point.level == level]

    with figure() as (made, axes):
        axes.axhline(level, color=MUTED, linestyle="--", linewidth=1, label="nominal")
        for label, colour, of_regions in lines:
            if all(map(held, of_regions)):
                axes.plot(names, [held(one)[0] for one in of_regions], color=colour, marker="o", label=label)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("pixels that the mean is over")
        axes.set_ylabel(f"means inside {level:.0%} intervals")
        axes.set_title("Uncertainty of regions")
        axes.legend(loc="lower left")
        return svg(made)


def residual_figure(result: UncertaintyResult) -> bytes:
    """Standardised residuals (x - g) / sigma beside the standard normal."""
    edges, density = np.array(result.residuals.edges), np.array(result.residuals.density)
    grid = np.linspace(edges[0], edges[-1], 200)
    with figure() as (made, axes):
        axes.stairs(density, edges.tolist(), fill=True, color=BLUE, alpha=0.35, label="this run")
        axes.plot(grid, stats.norm.pdf(grid), color=INK, linewidth=1, label="standard normal")
        axes.set_xlabel("(x - g) / sigma")
        axes.set_ylabel("density")
        axes.set_title("Standardised residuals")
        axes.legend()
        return svg(made)


def reliability_figure(result: UncertaintyResult) -> bytes:
    """The error made where a variance was predicted, against that variance."""
    groups = result.reliability
    # A group without any error has no place on a logarithmic axis.
    points = [(v, e) for v, e in zip(groups.variance, groups.square_error, strict=True) if e > 0]
    with figure() as (made, axes):
        ends = [min(v for v, _ in points), max(v for v, _ in points)]
        axes.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1, label="calibrated")
        axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=4, label="groups of pixels")
        axes.set_xscale("log")
        axes.set_yscale("log")
        # The variances span about a decade, in which labels at every multiple run into each other.
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        # Black backgrounds have next to no error; what matters is where the variance claims something.
        axes.set_ylim(bottom=max(min(e for _, e in points), ends[0] / 300) * 0.8)
        axes.set_xlabel("predicted variance")
        axes.set_ylabel("mean squared error")
        axes.set_title("Variance against error")
        axes.legend()
        return svg(made)


def sparsification_figure(result: UncertaintyResult) -> bytes:
    """How the error of the rest falls as the most uncertain pixels are left out."""
    curve = result.sparsification
    with figure() as (made, axes):
        axes.axhline(1, color=MUTED, linestyle="--", linewidth=1, label="by chance")
        axes.plot(curve.left_out, curve.by_variance, color=BLUE, label="by predicted variance")
        axes.plot(curve.left_out, curve.by_error, color=GREEN, label="by the error itself")
        axes.fill_between(curve.left_out, curve.by_error, curve.by_variance, color=ORANGE, alpha=0.15)
        axes.set_xlabel("part of the pixels left out")
        axes.set_ylabel("relative squared error of the rest")
        axes.set_title("Sparsification")
        axes.legend()
        return svg(made)


# Equation 11.
def log_aggregate_posterior(z: Tensor, codes: Latents) -> Tensor:
    """log q(z) = log 1/N sum_i q(z|x_i) for z (M, D) and the posteriors of N images. Returns (M,), float64."""
    mean, std = codes.mean.double(), codes.std.double()
    parts = [torch.logsumexp(log_normal(part[:, None], mean, std), dim=1) for part in z.double().split(100)]
    return torch.cat(parts) - math.log(len(mean))


def density_figure(codes: Latents, log_mixture: Callable[[Tensor], Tensor] | None) -> bytes:
    """Aggregate posterior, its mixture where there is one, and the prior, as a PNG file. codes: D = 2."""
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
