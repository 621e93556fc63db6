"""The summaries of a run's mixtures, drawn over their number of components."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_shards.io.atomic import replacing
from trainer.mixture.fitted import SUMMARY


def draw_comparison(folders: Sequence[Path]) -> Path:
    """Draws the summaries of mixtures over their number of components, and returns the picture's path.

    folders: of one run, with summary.json in each; the picture is comparison.png beside them.
    """
    summaries = [json.loads((folder / SUMMARY).read_text()) for folder in folders]
    summaries.sort(key=lambda summary: summary["settings"]["n_components"])
    sizes = [summary["settings"]["n_components"] for summary in summaries]
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    _curves(
        panels[0],
        sizes,
        {"training": _of(summaries, "train"), "held out": _of(summaries, "held_out")},
        "log-likelihood, nats per code",
    )
    _curves(panels[1], sizes, {"KL to the prior": _of(summaries, "kl_to_prior")}, "KL(q_hat || N(0, I)), nats")
    _curves(panels[2], sizes, {"BIC": ([summary["bic"] for summary in summaries], None)}, "BIC, counting every number")
    effective = [summary["effective_components"] for summary in summaries]
    _curves(panels[3], sizes, {"exp(entropy of weights)": (effective, None)}, "effective components")
    panels[3].set_yscale("log")
    ends = {name: ([summary["eigenvalues"][name] for summary in summaries], None) for name in ("smallest", "largest")}
    _curves(panels[4], sizes, ends, "eigenvalues of covariances")
    panels[4].set_yscale("log")
    phases = {name: ([s["seconds"][name] for s in summaries], None) for name in summaries[0]["seconds"]}
    _curves(panels[5], sizes, phases, "seconds")
    panels[5].set_yscale("log")
    path = folders[0].parent / "comparison.png"
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)
    return path


def _of(summaries: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Values and standard errors of one quantity; NaN, which is not drawn, where an error is not known."""
    errors = [s[name]["standard_error"] for s in summaries]
    return [s[name]["nats"] for s in summaries], [math.nan if error is None else error for error in errors]


def _curves(
    panel: Axes, sizes: list[int], curves: Mapping[str, tuple[list[float], list[float] | None]], title: str
) -> None:
    for name, (values, errors) in curves.items():
        panel.errorbar(sizes, values, yerr=errors, marker="o", capsize=3, label=name)
    panel.set_xscale("log")
    panel.set_xlabel("components")
    panel.set_title(title)
    if len(curves) > 1:
        panel.legend()
