"""Training curves over images seen, from a run's metrics.jsonl."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from eval.report.style import BLUE, GREEN, MUTED, ORANGE, figure, svg

Event = dict[str, Any]


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
