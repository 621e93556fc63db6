"""Calibration of the predicted variance in figures, from RUN/eval/uncertainty.json."""

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from eval.report.style import BLUE, GREEN, INK, MUTED, ORANGE, figure, svg
from eval.results import UncertaintyResult


def coverage_figure(result: UncertaintyResult) -> bytes:
    """How many pixels the predicted intervals hold, against how many they promise."""
    levels = [point.level for point in result.coverage]
    with figure() as (made, axes):
        axes.plot([0.4, 1], [0.4, 1], color=MUTED, linestyle="--", linewidth=1, label="calibrated")
        axes.plot(levels, [point.value for point in result.coverage], color=BLUE, marker="o", label="all pixels")
        if result.upper_half:
            held = [point.value for point in result.upper_half.coverage]
            axes.plot(levels, held, color=ORANGE, marker="o", label="the more uncertain half")
        axes.set_xlabel("promised")
        axes.set_ylabel("held")
        axes.set_title("Predicted intervals")
        axes.legend(loc="lower right")
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
