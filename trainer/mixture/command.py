"""The command that fits mixtures to the codes of a run and writes them into the run folder."""

import argparse
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data_shards.io import atomic
from data_shards.io.command_line import OneLineParser
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress as Bar
from trainer.mixture import encodings
from trainer.mixture.diagnostics import describe
from trainer.mixture.em.loop import Progress
from trainer.mixture.figure import draw
from trainer.mixture.folder import mixture_folder
from trainer.mixture.gaussian_mixture import GaussianMixture
from trainer.mixture.settings import COVARIANCE_TYPES, SEEDINGS, Settings
from trainer.process_group import Ranks, process_group
from trainer.run_folder.latents import WEIGHTS


def parser() -> OneLineParser:
    """The command line."""
    parser = OneLineParser(
        prog="python -m trainer.mixture",
        description="Fits q_hat(z), a Gaussian mixture, to the latent codes of a run (see python -m eval encode) "
        "and writes RUN/mixtures/K-COVARIANCE with a summary.json. The same command again returns at once. "
        "Runs on any number of processes: torchrun --nproc-per-node N -m -- trainer.mixture --run RUN.",
    )
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--components", type=int, nargs="+", default=[32], metavar="K", help="components (default 32)")
    parser.add_argument("--covariance", choices=COVARIANCE_TYPES, default="full", help="default full")
    parser.add_argument("--weights", choices=WEIGHTS, default="final", help="codes of these weights (default final)")
    parser.add_argument(
        "--encodings",
        choices=encodings.FORMS,
        default="posterior",
        help="a code enters as the Gaussian q(z|x) (default), as its mean, or as one sample",
    )
    parser.add_argument("--iterations", type=int, default=50, help="most EM iterations (default 50)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative gain that ends EM (default 1e-4)")
    parser.add_argument("--ridge", type=float, default=1e-6, help="added to every variance (default 1e-6)")
    parser.add_argument("--prior-strength", type=float, help="nu; default: chosen on held-out codes")
    parser.add_argument("--inflation", type=float, help="factor on covariances; default: chosen on held-out codes")
    parser.add_argument("--annealing", type=int, default=10, metavar="N", help="annealed iterations (default 10)")
    parser.add_argument("--seeding", choices=SEEDINGS, default="auto", help="seeds of k-means (default auto)")
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="C",
        help="components that a point meets in the truncated E-step, 0 for all; default: 32 where there are many",
    )
    parser.add_argument(
        "--start-from",
        type=int,
        metavar="K",
        help="start from the fitted mixture of K components of this run, split, instead of from k-means",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    return parser


def main() -> None:
    """Reads the command line and fits."""
    args = parser().parse_args()
    fits = [_settings(args, k) for k in args.components]
    with process_group(args.device) as ranks:
        folders = [
            fit_run(
                args.run,
                settings,
                weights=args.weights,
                form=args.encodings,
                start_from=args.start_from,
                ranks=ranks,
            )
            for settings in fits
        ]
        if ranks.is_main and len(folders) > 1:
            print(draw(folders), flush=True)


def _settings(args: argparse.Namespace, k: int) -> Settings:
    return Settings(
        n_components=k,
        covariance_type=args.covariance,
        reg_covar=args.ridge,
        tol=args.tolerance,
        max_iter=args.iterations,
        prior_strength=args.prior_strength,
        inflation=args.inflation,
        annealing_iter=args.annealing,
        init_params=args.seeding,
        candidates=args.candidates,
        random_state=args.seed,
    )


def fit_run(
    run: str,
    settings: Settings,
    *,
    weights: str = "final",
    form: str = "posterior",
    start_from: int | None = None,
    ranks: Ranks,
) -> Path:
    """Fits one mixture to the codes of `run` unless it is there, and returns its folder.

    form: how a code enters, see `encodings.FORMS`; start_from: components of a fitted mixture to start from. Raises
    InputError where codes or that mixture are missing.
    """
    folder = mixture_folder(run, settings.n_components, settings.covariance_type, weights)
    asked = {"settings": asdict(settings), "weights": weights, "encodings": form, "start_from": start_from}
    if ranks.any(_finished(folder, asked)):
        _say(ranks, f"{folder}: already fitted with these settings")
        return folder
    data = encodings.read(run, weights, form, settings.random_state, ranks)
    mixture = GaussianMixture(**asdict(settings))
    start = None
    if start_from is not None:
        if start_from > settings.n_components:
            raise InputError(f"start-from: {start_from} is more than the {settings.n_components} components asked for")
        smaller = mixture_folder(run, start_from, settings.covariance_type, weights)
        start = GaussianMixture.load(smaller).parameters_
    title = f"mixture of {settings.n_components}, {settings.covariance_type}"
    with Bar(title, settings.max_iter, "iterations", show=ranks.is_main) as bar:

        def after(progress: Progress) -> None:
            bar.update(progress.iteration, nats=f"{progress.history[-1]['log_likelihood']:.3f}")

        mixture.fit(
            data.train.x,
            variance=data.train.variance,
            held_out=data.held_out.x,
            held_out_variance=data.held_out.variance,
            start=start,
            ranks=ranks,
            after=after,
            checkpoint=folder / "checkpoints",
        )
    train = _likelihood(mixture, data.train.sample, ranks)
    summary: dict[str, Any] = asked | {
        "train": train,
        "held_out": _likelihood(mixture, data.held_out.sample, ranks) | {"source": data.held_out_source},
        **describe(mixture, settings.random_state),
        "iterations": mixture.n_iter_,
        "converged": mixture.converged_,
        "prior_strength": mixture.prior_strength_,
        "inflation": mixture.inflation_,
        "truncation_loss": mixture.truncation_loss_,
        "processes": ranks.world_size,
        "seconds": mixture.seconds_,
    }
    summary["bic"] = -2 * train["nats"] * train["points"] + summary["free_numbers"] * math.log(train["points"])
    if ranks.is_main:
        # A summary that describes another mixture must not outlive it.
        (folder / "summary.json").unlink(missing_ok=True)
        mixture.save(folder)
        atomic.write_json(folder / "summary.json", summary)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ranks.barrier()
    _say(ranks, _line(folder, summary))
    return folder


def _finished(folder: Path, asked: dict[str, Any]) -> bool:
    """True where `folder` holds the fit that is asked for; summary.json is written last."""
    if not (folder / "summary.json").exists():
        return False
    record = json.loads((folder / "summary.json").read_text())
    return all(record.get(name) == value for name, value in asked.items())


def _likelihood(mixture: GaussianMixture, samples: torch.Tensor, ranks: Ranks) -> dict[str, Any]:
    """Mean log q_hat(z) over z ~ q(z|x), one z an image, with its standard error."""
    values = mixture.score_samples(samples.to(ranks.device))
    sums = ranks.sum_(torch.stack([values.sum(), values.square().sum(), values.new_tensor(len(values))]))
    mean = sums[0] / sums[2]
    error = ((sums[1] / sums[2] - mean.square()).clamp(min=0) / sums[2]).sqrt()
    return {"nats": float(mean), "standard_error": float(error), "points": int(sums[2]), "of": "one sample of q(z|x)"}


def _line(folder: Path, summary: dict[str, Any]) -> str:
    held_out, kl = summary["held_out"], summary["kl_to_prior"]
    return (
        f"{folder}: log-likelihood {summary['train']['nats']:.3f} train, {held_out['nats']:.3f} "
        f"+- {held_out['standard_error']:.3f} held out, KL to the prior {kl['nats']:.3f} +- {kl['standard_error']:.3f}"
    )


def _say(ranks: Ranks, line: str) -> None:
    if ranks.is_main:
        print(line, flush=True)
