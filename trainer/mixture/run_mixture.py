"""The mixture of a run: fitted to its latent codes and written into its folder, with its numbers in summary.json."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.lease import Lease
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from trainer.dry_run import forward_operations
from trainer.mixture.checkpoints import remove_checkpoints
from trainer.mixture.content import digest_of_points, digest_of_tensors
from trainer.mixture.density import MixtureDensity
from trainer.mixture.fitted import SUMMARY, load_mixture, mixture_folder, read_summary, save_mixture
from trainer.mixture.fitting import fit_mixture
from trainer.mixture.points import Points, checked_points
from trainer.mixture.settings import Settings
from trainer.mixture.start import Start
from trainer.objectives.gaussian import log_prior
from trainer.process_group import Ranks
from trainer.run_folder import latents
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.holding import held_by_main
from trainer.run_folder.restore import load_model


class Encodings(NamedTuple):
    """x: (n, D); variance: (n, D) where codes are Gaussians q(z|x), else None; sample: (n, D), z ~ q(z|x)."""

    x: Tensor
    variance: Tensor | None
    sample: Tensor


class Codes(NamedTuple):
    """Codes to fit to, held-out codes, and the source of the latter."""

    train: Encodings
    held_out: Encodings
    held_out_source: str


# Where a run has no validation split, every tenth image of the training split is held out.
_HELD_OUT_EVERY = 10


def read_codes(run: str | Path, weights: str, form: str, seed: int, ranks: Ranks) -> Codes:
    """This process's slice of the codes of split "train", and held-out codes: split "valid" where it is encoded, else
    every tenth image of "train", which is then left out of the fit. Raises InputError where the processes see others.
    """
    of_train = ranks.agree(lambda: latents.read(run, "train", weights=weights))
    of_valid = ranks.agree(
        lambda: latents.read(run, "valid", weights=weights) if latents.exists(run, "valid", weights=weights) else None
    )
    facts = {
        f"codes of split {split}": "none" if codes is None else latents.digest(codes)
        for split, codes in (("train", of_train), ("valid", of_valid))
    }
    ranks.refuse_differences(facts, "use a run folder on a disk that all machines share")
    train = _part(of_train, ranks)
    if of_valid is not None:
        valid = _part(of_valid, ranks)
        return Codes(_encodings(train, form, seed), _encodings(valid, form, seed + 1), "split valid")
    held = train.index % _HELD_OUT_EVERY == 0
    if not ranks.any(bool(held.any())) or not ranks.any(bool((~held).any())):
        raise InputError(f"{run}: too few codes of split 'train' to hold some out; encode more images")
    kept, out = (latents.Latents(*(tensor[mask] for tensor in train)) for mask in (~held, held))
    source = f"every {_HELD_OUT_EVERY}th image of split train, left out of the fit"
    return Codes(_encodings(kept, form, seed), _encodings(out, form, seed), source)


def _part(codes: latents.Latents, ranks: Ranks) -> latents.Latents:
    """This process's part of all codes."""
    own = ranks.partition(len(codes.index))
    return latents.Latents(*(tensor[own.start : own.stop] for tensor in codes))


def _encodings(codes: latents.Latents, form: str, seed: int) -> Encodings:
    sample = codes.mean + codes.std * _noise(codes, seed)
    if form == "posterior":
        return Encodings(codes.mean, codes.std.square(), sample)
    return Encodings(codes.mean if form == "mean" else sample, None, sample)


def _noise(codes: latents.Latents, seed: int) -> Tensor:
    """(n, D) standard normal numbers that depend on the image only, not on the process that reads it."""
    if not len(codes.index):
        return codes.mean.clone()
    generator = torch.Generator().manual_seed(seed)
    rows = int(codes.index.max()) + 1
    return torch.randn(rows, codes.mean.shape[1], generator=generator)[codes.index]


# EM iterations, annealed ones included, and k-means before them, which costs as much again.
_ITERATIONS = 120


@dataclass(frozen=True, kw_only=True)
class MixtureCost:
    """An estimate, before the start, of encoding the images of a run and fitting mixtures to the codes."""

    weights: int
    """Weights of the run's model."""
    shards: str
    """Where its images are."""
    codes: int
    """Images that are encoded: of split train, and of split valid where there is one."""
    dim: int
    """Latent dimensions of a code."""
    operations: float
    """Floating-point operations of the whole job."""
    disk: float
    """Bytes of codes and mixtures."""


def estimate_cost(run: str | Path, components: Sequence[int]) -> MixtureCost:
    """The cost of one fit for each number of components. Raises InputError where run or shards are missing."""
    config = trained_configuration(run)
    model, manifest = load_model(run), Manifest.load(config.data.location)
    codes = sum(manifest.num_samples(split) for split in ("train", "valid") if split in manifest.splits)
    dim = model.latent_dim
    fits = sum(2.0 * codes * k * dim**2 * _ITERATIONS for k in components)
    return MixtureCost(
        weights=sum(weight.numel() for weight in model.parameters()),
        shards=config.data.shards,
        codes=codes,
        dim=dim,
        operations=codes * forward_operations(model) / 2 + fits,
        disk=codes * (8 * dim + 8) + sum(k * dim * (dim + 3) * 8 for k in components),
    )


@dataclass(frozen=True, kw_only=True)
class RunMixture:
    """A fitted mixture of a run."""

    folder: Path
    """RUN/mixtures/K-COVARIANCE[-WEIGHTS]."""
    summary: dict[str, Any]
    """The content of its summary.json."""
    is_new: bool
    """False where it was there already."""


def fit_run_mixture(
    run: str | Path,
    settings: Settings,
    *,
    weights: str = "final",
    form: str = "posterior",
    start_from: int | None = None,
    ranks: Ranks,
    show_progress: bool = False,
    steal_lock: bool = False,
) -> RunMixture:
    """Fits one mixture to the codes of `run`, unless it was fitted with these settings already.

    form: how a code is fitted, see `settings.FORMS`; start_from: components of a fitted mixture of the run to start
    from; show_progress: with a bar; steal_lock: takes the fit over from a process that works on it. Raises InputError
    where codes or that mixture are missing, or another process fits this mixture.
    """
    folder = mixture_folder(run, settings.n_components, settings.covariance_type, weights)
    wanted: dict[str, Any] = {
        "settings": asdict(settings),
        "weights": weights,
        "encodings": form,
        "start_from": start_from,
        "codes": {split: latents.encoded_from(run, split, weights=weights) for split in ("train", "valid")},
    }
    if len({record["checkpoint"] for record in wanted["codes"].values() if record}) > 1:
        raise InputError(f"{run}: the codes of splits train and valid are of different weights; encode both again")
    data = read_codes(run, weights, form, settings.random_state, ranks)
    start = None if start_from is None else _start(run, settings, weights, start_from)
    wanted["points"] = {
        name: digest_of_points(Points(part.x, part.variance), ranks)
        for name, part in (("train", data.train), ("held_out", data.held_out))
    }
    wanted["start"] = None if start is None else digest_of_tensors(start.tensors)
    found = read_summary(folder)
    if ranks.any(found is not None and _is_of(found, wanted) and _can_be_read(folder, ranks)):
        return RunMixture(folder=folder, summary=found or {}, is_new=False)
    with held_by_main(folder, ranks, steal=steal_lock) as held:
        summary = _fit(folder, settings, wanted, data, start, ranks, held, show_progress)
    return RunMixture(folder=folder, summary=summary, is_new=True)


def _fit(
    folder: Path,
    settings: Settings,
    wanted: dict[str, Any],
    data: Codes,
    start: Start | None,
    ranks: Ranks,
    held: Lease | None,
    show_progress: bool,
) -> dict[str, Any]:
    """Fits and writes the mixture that `wanted` describes. Returns its summary."""
    title = f"mixture of {settings.n_components}, {settings.covariance_type}"
    with Progress(title, settings.max_iter, "iterations", show=show_progress and ranks.is_main) as bar:
        fitted = fit_mixture(
            checked_points(data.train.x, data.train.variance, "codes", None, ranks),
            checked_points(data.held_out.x, data.held_out.variance, "held-out codes", data.train.x.shape[1], ranks),
            settings=settings,
            start=start,
            ranks=ranks,
            after=lambda state: bar.update(state.iteration, nats=f"{state.history[-1]['log_likelihood']:.3f}"),
            checkpoint=folder / "checkpoints",
        )
    density, record = fitted.density, fitted.record
    assert record is not None
    train = likelihood(density, data.train.sample, ranks)
    summary: dict[str, Any] = wanted | {
        "train": train,
        "held_out": likelihood(density, data.held_out.sample, ranks) | {"source": data.held_out_source},
        **describe(density, settings.random_state),
        "iterations": record.n_iter,
        "converged": record.converged,
        "prior_strength": record.prior_strength,
        "inflation": record.inflation,
        "truncation_loss": record.truncation_loss,
        "alive": record.alive,
        "remarks": record.remarks,
        "processes": ranks.world_size,
        "seconds": record.seconds,
    }
    summary["bic"] = -2 * train["nats"] * train["points"] + summary["free_numbers"] * math.log(train["points"])

    def write() -> None:
        if held is None:
            return
        held.check()
        # The summary of a former mixture is removed first, so that a crash never leaves it beside this one.
        (folder / SUMMARY).unlink(missing_ok=True)
        save_mixture(folder, fitted)
        atomic.write_json(folder / SUMMARY, summary)
        remove_checkpoints(folder / "checkpoints")

    ranks.agree(write)
    return summary


# Of a summary, what a comparison of several draws.
_NUMBERS = {"train", "held_out", "kl_to_prior", "bic", "effective_components", "eigenvalues", "seconds"}


def _is_of(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a summary is that of the mixture that is wanted.

    One of an earlier version does not say which codes and which start it was fitted with, and lacks newer settings.
    """
    if not set(found) >= _NUMBERS:
        return False
    before = {name: wanted[name] for name in ("codes", "points", "start")} | dict(found)
    try:
        before["settings"] = asdict(Settings(**before["settings"]))
    except (KeyError, TypeError, InputError):
        return False
    return all(before.get(name) == value for name, value in wanted.items())


def _can_be_read(folder: Path, ranks: Ranks) -> bool:
    """Whether the mixture beside a summary is whole; one that is not is named, to be fitted again."""
    try:
        load_mixture(folder)
    except InputError as error:
        if ranks.is_main:
            print(f"warning: {error}; it is fitted again", file=sys.stderr, flush=True)
        return False
    return True


def _start(run: str | Path, settings: Settings, weights: str, components: int) -> Start:
    """The fitted mixture of `components` components of the run, to start from."""
    if components > settings.n_components:
        message = f"{components} is more than the {settings.n_components} components of the new mixture"
        raise InputError(message, parameter="start_from")
    folder = mixture_folder(run, components, settings.covariance_type, weights)
    return Start.at(load_mixture(folder).parameters)


_PRIOR_SAMPLES = 10_000


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
