"""A run's covariances of residuals, fitted once and read by every measurement with correlated noise.

They lie in RUN/eval/residuals[-WEIGHTS]-ADDRESS.safetensors, and what is known of them in the JSON file of that name,
which is written last. The address is of all that they depend on.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.progress import Progress
from data_shards.io.regular_files import read_regular
from eval.measured_once import measured_once
from eval.protocol import ResidualsProtocol
from eval.questions import ResidualsQuestion
from eval.residuals.covariance import FactorCovariance, cap
from eval.residuals.fit import FittedCovariances, fit_covariances, passes
from eval.residuals.noise import CorrelatedNoise
from eval.results import ResidualsResult, measured_before
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.density import MixtureDensity
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import fingerprint

NAME = "residuals"


def fit_residuals(
    run: MeasuredRun, question: ResidualsQuestion, ranks: Ranks, *, steal: bool = False
) -> ResidualsResult:
    """Fits and writes the covariances that a question asks for, unless they were fitted before.

    All processes take part. steal: takes the files from another job that fits the same. Raises InputError where there
    is one, or the mixture is missing.
    """
    mixture = _mixture(run, question, ranks)
    protocol = _protocol(run, question, mixture)
    path = run.result_path(NAME, protocol)
    with measured_once(ResidualsResult, path, protocol, ranks, steal=steal) as place:
        if place.found is not None:
            return place.found
        n = run.manifest.num_samples(run.config.data.train_split)
        total = passes(run.model.pixels) * n
        with Progress(f"residuals, {run.weights} weights", total, show=ranks.is_main) as bar:
            seen = 0

            def progress(images: int) -> None:
                nonlocal seen
                seen = min(total, seen + images * ranks.world_size)
                bar.update(seen)

            bar.update(0)
            floor = algorithm1_floor(run) if question.floor == "algorithm1" else 0.0
            fitted = fit_covariances(run, mixture, floor, ranks, seed=question.seed, progress=progress)
        result = _result(run, protocol, fitted)
        place.save(result, beside=save(_tensors(fitted.covariances)))
    return result


def algorithm1_floor(run: MeasuredRun) -> float:
    """The floor of Algorithm 1 in units of sigma^2: 1/2, or variance.floor over sigma_dataset^2, at most 1."""
    chosen = run.config.variance.floor
    return 0.5 if isinstance(chosen, str) else min(1.0, chosen / run.model.dataset_variance)


def load_noise(run: MeasuredRun, question: ResidualsQuestion, ranks: Ranks) -> CorrelatedNoise:
    """The noise that was fitted to a run. Raises InputError where it was not, or is damaged."""
    mixture = _mixture(run, question, ranks)
    protocol = _protocol(run, question, mixture)
    path = run.result_path(NAME, protocol)
    result = measured_before(ResidualsResult, path, protocol)
    words = f"`{protocol.command(str(run.folder))}`"
    if result is None:
        raise InputError(f"no residuals were fitted to these weights; fit them with {words}", parameter="noise")
    return CorrelatedNoise(
        covariances=tuple(one.to(ranks.device) for one in _read(path.with_suffix(".safetensors"), result, words)),
        mixture=mixture,
        digest=protocol.address(),
        cap=result.cap,
    )


def _mixture(run: MeasuredRun, question: ResidualsQuestion, ranks: Ranks) -> MixtureDensity | None:
    of_components = question.noise == "correlated-component"
    return run.mixture(question.mixture, question.covariance, ranks.device) if of_components else None


def _protocol(run: MeasuredRun, question: ResidualsQuestion, mixture: MixtureDensity | None) -> ResidualsProtocol:
    data = run.config.data
    return run.protocol(
        ResidualsProtocol,
        split=data.train_split,
        n=run.manifest.num_samples(data.train_split),
        seed=question.seed,
        measure=ResidualsResult.MEASURE,
        subset="all",
        noise=question.noise,
        floor=question.floor,
        held_out=data.valid_split,
        mixture=f"{question.mixture}-{question.covariance}" if mixture else "",
        mixture_digest=mixture_digest(mixture) if mixture else "",
    )


def _result(run: MeasuredRun, protocol: ResidualsProtocol, fitted: FittedCovariances) -> ResidualsResult:
    return ResidualsResult(
        protocol=protocol,
        gain=fitted.gain,
        rank=max(one.factor.shape[1] for one in fitted.covariances),
        smallest_variance=min(float(one.diagonal.min()) for one in fitted.covariances),
        cap=cap(fitted.covariances, run.variance_floor),
        common=fitted.common,
        strengths=fitted.strengths,
        images=fitted.images,
        digest=f"{fingerprint(_tensors(fitted.covariances)):016x}",
    )


def _tensors(covariances: tuple[FactorCovariance, ...]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for k, one in enumerate(covariances):
        tensors |= {f"factor.{k}": one.factor.cpu().contiguous(), f"diagonal.{k}": one.diagonal.cpu().contiguous()}
    return tensors


def _read(path: Path, result: ResidualsResult, words: str) -> tuple[FactorCovariance, ...]:
    try:
        tensors = load(read_regular(path))
        if f"{fingerprint(tensors):016x}" != result.digest:
            raise ValueError("its content is not what was written")
        return tuple(
            FactorCovariance(factor=tensors[f"factor.{k}"], diagonal=tensors[f"diagonal.{k}"])
            for k in range(len(tensors) // 2)
        )
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise_machine_fault(error, path)
        raise InputError(
            f"{path} is damaged ({error}); delete {path.with_suffix('.json').name} and fit again with {words}"
        ) from error
