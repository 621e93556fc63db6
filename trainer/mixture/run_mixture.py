"""The mixture of a run: fitted to its latent codes and written into its folder."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from trainer.config.config import load_config
from trainer.dry_run import forward_operations
from trainer.mixture.fitted import load_mixture, mixture_folder, save_mixture
from trainer.mixture.fitting import Start, fit_mixture
from trainer.mixture.points import checked_points
from trainer.mixture.settings import Settings
from trainer.mixture.summary import SUMMARY, describe, likelihood, read_summary
from trainer.process_group import Ranks
from trainer.run_folder import latents
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
    every tenth image of "train", which is then left out of the fit."""
    train = latents.read(run, "train", weights=weights, part=ranks.rank, parts=ranks.world_size)
    if latents.exists(run, "valid", weights=weights):
        valid = latents.read(run, "valid", weights=weights, part=ranks.rank, parts=ranks.world_size)
        return Codes(_encodings(train, form, seed), _encodings(valid, form, seed + 1), "split valid")
    held = train.index % _HELD_OUT_EVERY == 0
    if not ranks.any(bool(held.any())) or not ranks.any(bool((~held).any())):
        raise InputError(f"{run}: too few codes of split 'train' to hold some out; encode more images")
    kept, out = (latents.Latents(*(tensor[mask] for tensor in train)) for mask in (~held, held))
    source = f"every {_HELD_OUT_EVERY}th image of split train, left out of the fit"
    return Codes(_encodings(kept, form, seed), _encodings(out, form, seed), source)


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
    config = load_config(run)
    model, manifest = load_model(run), Manifest.load(config.data.shards)
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
    """RUN/mixtures/K-COVARIANCE[-stage1]."""
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
) -> RunMixture:
    """Fits one mixture to the codes of `run`, unless it was fitted with these settings already.

    form: how a code is fitted, see `settings.FORMS`; start_from: components of a fitted mixture of the run to start
    from; show_progress: with a bar. Raises InputError where codes or that mixture are missing.
    """
    folder = mixture_folder(run, settings.n_components, settings.covariance_type, weights)
    wanted = {"settings": asdict(settings), "weights": weights, "encodings": form, "start_from": start_from}
    found = read_summary(folder)
    if ranks.any(found is not None and all(found.get(name) == value for name, value in wanted.items())):
        return RunMixture(folder=folder, summary=found or {}, is_new=False)
    data = read_codes(run, weights, form, settings.random_state, ranks)
    title = f"mixture of {settings.n_components}, {settings.covariance_type}"
    with Progress(title, settings.max_iter, "iterations", show=show_progress and ranks.is_main) as bar:
        fitted = fit_mixture(
            checked_points(data.train.x, data.train.variance, "codes", None, ranks),
            checked_points(data.held_out.x, data.held_out.variance, "held-out codes", data.train.x.shape[1], ranks),
            settings=settings,
            start=None if start_from is None else _start(run, settings, weights, start_from),
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
        "processes": ranks.world_size,
        "seconds": record.seconds,
    }
    summary["bic"] = -2 * train["nats"] * train["points"] + summary["free_numbers"] * math.log(train["points"])
    if ranks.is_main:
        # The summary of a former mixture is removed first, so that a crash never leaves it beside this one.
        (folder / SUMMARY).unlink(missing_ok=True)
        save_mixture(folder, fitted)
        atomic.write_json(folder / SUMMARY, summary)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ranks.barrier()
    return RunMixture(folder=folder, summary=summary, is_new=True)


def _start(run: str | Path, settings: Settings, weights: str, components: int) -> Start:
    """The fitted mixture of `components` components of the run, to start from."""
    if components > settings.n_components:
        message = f"{components} is more than the {settings.n_components} components of the new mixture"
        raise InputError(message, parameter="start_from")
    folder = mixture_folder(run, components, settings.covariance_type, weights)
    return Start.at(load_mixture(folder).parameters)
