"""The mixture of a run: fitted to its latent codes and written into its folder, with its numbers in summary.json."""

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from trainer.mixture.checkpoints import remove_checkpoints
from trainer.mixture.codes import Codes, read_codes
from trainer.mixture.content import digest_of_points, digest_of_tensors
from trainer.mixture.fitted import (
    MIXTURE,
    SUMMARY,
    FittedMixture,
    load_mixture,
    mixture_folder,
    read_summary,
    save_mixture,
)
from trainer.mixture.fitting import fit_mixture
from trainer.mixture.points import Points, checked_points
from trainer.mixture.settings import Settings
from trainer.mixture.start import Start
from trainer.mixture.summary import describe, likelihood
from trainer.process_group import Ranks
from trainer.run_folder import latents
from trainer.run_folder.holding import held_by_main


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
        "codes": latents.origins(run, weights=weights),
    }
    data = read_codes(run, weights, form, settings.random_state, ranks)
    start = None if start_from is None else _start(run, settings, weights, start_from)
    wanted["points"] = {
        name: digest_of_points(Points(part.x, part.variance), ranks)
        for name, part in (("train", data.train), ("held_out", data.held_out))
    }
    wanted["start"] = None if start is None else digest_of_tensors(start.tensors)
    found = read_summary(folder)
    if ranks.any(found is not None and _is_of(found, wanted) and _can_be_read(folder, found, ranks)):
        return RunMixture(folder=folder, summary=found or {}, is_new=False)
    fit = _Fit(folder=folder, settings=settings, wanted=wanted, data=data, start=start)
    with held_by_main(folder, ranks, steal=steal_lock) as held:
        fitted = fit.fitted(ranks, show_progress=show_progress)
        summary = fit.summary(fitted, ranks)

        def write() -> None:
            if held is not None:
                held.check()
                _write(folder, fitted, summary)

        ranks.agree(write)
    return RunMixture(folder=folder, summary=summary, is_new=True)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """One fit that is to be made."""

    folder: Path
    """Where the mixture is written."""
    settings: Settings
    wanted: dict[str, Any]
    """The entries of the summary that say what is fitted, to which codes and from which start."""
    data: Codes
    start: Start | None

    def fitted(self, ranks: Ranks, *, show_progress: bool) -> FittedMixture:
        """The mixture, the same on every process."""
        settings, data = self.settings, self.data
        title = f"mixture of {settings.n_components}, {settings.covariance_type}"
        with Progress(title, settings.max_iter, "iterations", show=show_progress and ranks.is_main) as bar:
            return fit_mixture(
                checked_points(data.train.x, data.train.variance, "codes", None, ranks),
                checked_points(data.held_out.x, data.held_out.variance, "held-out codes", data.train.x.shape[1], ranks),
                settings=settings,
                start=self.start,
                ranks=ranks,
                after=lambda state: bar.update(state.iteration, nats=f"{state.history[-1]['log_likelihood']:.3f}"),
                checkpoint=self.folder / "checkpoints",
            )

    def summary(self, fitted: FittedMixture, ranks: Ranks) -> dict[str, Any]:
        """The content of summary.json, the same on every process."""
        density, record = fitted.density, fitted.record
        assert record is not None
        train = likelihood(density, self.data.train.sample, ranks)
        held_out = likelihood(density, self.data.held_out.sample, ranks)
        summary: dict[str, Any] = self.wanted | {
            "train": train,
            "held_out": held_out | {"source": self.data.held_out_source},
            **describe(density, self.settings.random_state),
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
        return summary


def _write(folder: Path, fitted: FittedMixture, summary: Mapping[str, Any]) -> None:
    # A full disk leaves the former mixture with its summary, and a crash never leaves that summary beside this mixture.
    with atomic.replacing(folder / SUMMARY) as new_summary:
        new_summary.write(atomic.json_text(summary).encode())
        new_summary.flush()
        os.fsync(new_summary.fileno())
        save_mixture(folder, fitted, of_former=[SUMMARY])
    remove_checkpoints(folder / "checkpoints")


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


def _can_be_read(folder: Path, summary: Mapping[str, Any], ranks: Ranks) -> bool:
    """Whether the mixture beside a summary is whole and of its fit; one that is not is named, to be fitted again."""
    try:
        record = load_mixture(folder).record
        # No other fit took the same time to the last digit.
        if record is None or record.seconds != summary["seconds"]:
            raise MIXTURE.damaged(folder, f"{MIXTURE.record} is of another fit than {SUMMARY}")
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
