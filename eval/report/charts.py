"""How every figure looks, and two general charts: points over a logarithmic axis, and bars by method.

Figures are small enough for a phone, in calm colours, and the same file for the same numbers.
"""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.results import Measured

INK, MUTED = "#1f2933", "#7b8794"
BLUE, ORANGE, GREEN, RED = "#2563a8", "#d97706", "#2f855a", "#b83280"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    # A page may be dark; nothing is drawn behind the axes.
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
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

_COLOURS = (BLUE, ORANGE, GREEN, RED)

Series = Mapping[float, Measured]
"""Numbers by their place on the horizontal axis."""


@contextmanager
def figure(width: float = 4.4, height: float = 2.9) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes; inches."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made, made.add_subplot()


def plain(text: str) -> str:
    """Text of the user's, such as the name of a class, as it is drawn: what two dollars enclose would be a formula."""
    return text.replace("$", r"\$")


def svg(made: Figure) -> bytes:
    """The figure as an SVG file. To be called inside the `figure` block."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="none")
    return buffer.getvalue()


def png(made: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file. To be called inside the `figure` block."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def line_panels(
    panels: Mapping[str, Mapping[str, Series]], *, axis: str, star: float | None = None, star_title: str = ""
) -> bytes:
    """One panel a title, in each a line a series over a logarithmic axis, as PNG. star: a marked place."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(3.6 * len(panels), 2.9), layout="constrained")
        drawn = made.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, series) in zip(drawn, panels.items(), strict=True):
            for colour, (name, numbers) in zip(_COLOURS, series.items(), strict=False):
                _line(axes, name, numbers, colour, star)
            axes.set_xscale("log")
            places = sorted({place for numbers in series.values() for place in numbers})
            axes.set_xticks(
                places, [f"{place:,.0f}" if place >= 100 else f"{place:.3g}" for place in places], fontsize=7
            )
            # Anchored at their ends, slanted labels of close places stay apart.
            axes.tick_params(axis="x", labelrotation=45)
            for label in axes.get_xticklabels():
                label.set(horizontalalignment="right", rotation_mode="anchor")
            axes.set_xticks([], minor=True)
            axes.set_xlabel(axis)
            axes.set_title(title)
            if len(series) > 1 or star is not None:
                axes.legend(title=star_title or None, fontsize=7.5)
        return png(made)


def _line(axes: Axes, name: str, numbers: Series, colour: str, star: float | None) -> None:
    places = sorted(numbers)
    values = [numbers[place].value for place in places]
    errors = [_bar_length(numbers[place]) for place in places]
    axes.errorbar(places, values, yerr=errors, marker="o", markersize=4, color=colour, label=name, capsize=2)
    if star is not None and star in numbers:
        axes.plot([star], [numbers[star].value], marker="*", markersize=13, color=colour, linestyle="none")


def _bar_length(number: Measured) -> float:
    """A number without a known error has no bar."""
    return math.nan if number.standard_error is None else number.standard_error


def bars(groups: Mapping[str, Mapping[str, Measured]], *, axis: str) -> bytes:
    """One group a name on the horizontal axis, in each a bar a series, as PNG; a missing number has no bar."""
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / max(len(series), 1)
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(max(4.4, 1.35 * len(groups)), 3.0), layout="constrained")
        axes = made.add_subplot()
        for place, (name, colour) in enumerate(zip(series, _COLOURS, strict=False)):
            shown = [(x, group[name]) for x, group in enumerate(groups.values()) if name in group]
            axes.bar(
                [x + (place - (len(series) - 1) / 2) * width for x, _ in shown],
                [number.value for _, number in shown],
                width,
                yerr=[_bar_length(number) for _, number in shown],
                color=colour,
                ecolor=MUTED,
                capsize=2,
                label=name,
            )
        axes.set_axisbelow(True)
        axes.set_xticks(range(len(groups)), list(groups), fontsize=8)
        axes.set_ylabel(axis)
        axes.axhline(0, color=MUTED, linewidth=0.6)
        axes.legend()
        return png(made)
