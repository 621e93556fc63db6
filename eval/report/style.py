"""How every figure looks: small enough for a phone, calm colours, the same file for the same numbers."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED = "#1f2933", "#7b8794"
BLUE, ORANGE, GREEN, RED = "#2563a8", "#d97706", "#2f855a", "#b83280"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    # Text stays text and ids are fixed, so that files are small and equal numbers give equal bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


@contextmanager
def figure(width: float = 4.4, height: float = 2.9) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes; inches."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made, made.add_subplot()


def svg(made: Figure) -> bytes:
    """The figure as an SVG file. To be called inside the `figure` block."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def png(made: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file. To be called inside the `figure` block."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
