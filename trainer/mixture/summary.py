"""The numbers of a fitted mixture: its summary.json, and a figure of several sizes side by side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trainer.mixture.density import MixtureDensity
from trainer.objectives.gaussian import log_prior
from trainer.process_group import Ranks

SUMMARY = "summary.json"
_PRIOR_SAMPLES = 10_000


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of the mixture in `folder`, or None where there is none."""
    path = folder / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


def kl_to_prior(
    density: MixtureDensity, generator: torch.Generator, samples: int = _PRIOR_SAMPLES
) -> tuple[float, float]:
    """KL(q_hat || N(0, I)) in nats by Monte Carlo, and its standard error."""
    z = density.sample(samples, generator).double()
    difference = density.score_samples(z) - log_prior(z)
    return float(difference.mean()), float(difference.std() / samples**0.5)


def effective_components(weights: Tensor) -> float:
    """exp of the entropy of the weights (K,): K where all are equal, 1 where one is 1."""
    positive = weights[weights > 0]
    return float((-(positive * positive.log()).sum()).exp())


def describe(density: MixtureDensity, seed: int) -> dict[str, Any]:
    """The entries of a summary that follow from the mixture alone. seed: of the samples of the KL to the prior."""
    kl, error = kl_to_prior(density, torch.Generator().manual_seed(seed))
    low, high = density.parameters.eigenvalue_range()
    return {
        "kl_to_prior": {"nats": kl, "standard_error": error, "samples": _PRIOR_SAMPLES, "seed": seed},
        "effective_components": effective_components(density.weights),
        "eigenvalues": {"smallest": low, "largest": high},
        "free_numbers": density.parameters.n_free_numbers(),
    }


def likelihood(density: MixtureDensity, samples: Tensor, ranks: Ranks) -> dict[str, Any]:
    """Mean log q_hat(z) in nats over the z ~ q(z|x) of all processes, (n, D) of this one, with its standard error."""
    values = density.score_samples(samples)
    sums = ranks.sum_(torch.stack([values.sum(), values.square().sum(), values.new_tensor(len(values))]))
    mean = sums[0] / sums[2]
    error = ((sums[1] / sums[2] - mean.square()).clamp(min=0) / sums[2]).sqrt()
    return {"nats": float(mean), "standard_error": float(error), "points": int(sums[2]), "of": "one sample of q(z|x)"}


def summary_line(folder: Path, summary: Mapping[str, Any]) -> str:
    """A summary in one line."""
    held_out, kl = summary["held_out"], summary["kl_to_prior"]
    return (
        f"{folder}: log-likelihood {summary['train']['nats']:.3f} train, {held_out['nats']:.3f} "
        f"+- {held_out['standard_error']:.3f} held out, KL to the prior {kl['nats']:.3f} +- {kl['standard_error']:.3f}"
    )


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
    figure.savefig(path, dpi=110)
    return path


def _of(summaries: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Values and standard errors of one quantity."""
    return [s[name]["nats"] for s in summaries], [s[name]["standard_error"] for s in summaries]


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
