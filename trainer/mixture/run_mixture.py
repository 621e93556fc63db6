"""The mixture of a run: fitted to its latent codes and written into its folder."""

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from trainer.mixture import encodings
from trainer.mixture.fitted import load_mixture, mixture_folder, save_mixture
from trainer.mixture.fitting import Start, fit_mixture
from trainer.mixture.points import checked_points
from trainer.mixture.settings import Settings
from trainer.mixture.summary import SUMMARY, describe, likelihood, read_summary
from trainer.process_group import Ranks


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

    form: how a code is fitted, see `encodings.FORMS`; start_from: components of a fitted mixture of the run to start
    from; show_progress: with a bar. Raises InputError where codes or that mixture are missing.
    """
    folder = mixture_folder(run, settings.n_components, settings.covariance_type, weights)
    wanted = {"settings": asdict(settings), "weights": weights, "encodings": form, "start_from": start_from}
    found = read_summary(folder)
    if ranks.any(found is not None and all(found.get(name) == value for name, value in wanted.items())):
        return RunMixture(folder=folder, summary=found or {}, is_new=False)
    data = encodings.read(run, weights, form, settings.random_state, ranks)
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
        # The summary of a former mixture goes first, so that a crash never leaves it beside this one.
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
