"""A run's transports on disk: fitted once, and read where they were fitted to the present weights and mixture.

A fitted transport lies in RUN/transports/K-COVARIANCE[-WEIGHTS]: transport.safetensors, and summary.json, which is
written last.
"""

import dataclasses
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError
from data_shards.io.lease import Lease
from data_shards.io.progress import Progress
from eval.images.marginals import Marginals
from eval.images.sources import LoadedDensity, mixture_sampler
from eval.images.transport import TENSORS, Transport, fit_transport, marginals_after
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.density import MixtureDensity
from trainer.mixture.fitted import mixture_folder
from trainer.process_group import Ranks
from trainer.run_folder.holding import held_by_main
from trainer.run_folder.tensor_folder import TensorFolder

_FILES = TensorFolder(noun="transport", tensors="transport.safetensors", record="summary.json")


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What a transport depends on."""

    checkpoint: str
    """Digest of the weights."""
    data: str
    """Hash of the shards' manifest."""
    mixture: str
    """Digest of the mixture."""
    seed: int
    """Seed of the latents."""
    rounds: int = 0
    """Rounds of monotone maps after the linear ones."""


@dataclass(frozen=True, kw_only=True)
class TransportSummary:
    """What is known of a fitted transport beside its maps."""

    depends_on: Dependencies
    """What it was fitted to."""
    directions: int
    """Directions in which images are transported, P."""
    maps: int
    """Different maps."""
    square_error: float
    """Mean over training images and pixels of (g(z) - x)^2, z from q(z|x): equation 9."""
    shared: int
    """Components that share one map."""
    images: tuple[int, int]
    """The fewest and the most training images of a component."""


def transport_folder(run: MeasuredRun, components: int, covariance: str) -> Path:
    """RUN/transports, by the name that the mixture's folder has."""
    return run.folder / "transports" / mixture_folder(run.folder, components, covariance, run.weights).name


def fitted_before(
    run: MeasuredRun, components: int, covariance: str, *, seed: int | None = None, rounds: int | None = None
) -> TransportSummary | None:
    """The run's transport where it was fitted to these weights and this mixture, else None.

    seed: that of its latents; rounds: those of its monotone maps; any where none is given. Raises InputError where the
    mixture is missing.
    """
    summary = _summary(transport_folder(run, components, covariance))
    if summary is None:
        return None
    mixture = run.mixture(components, covariance)
    found = summary.depends_on
    wanted = _dependencies(
        run, mixture, found.seed if seed is None else seed, found.rounds if rounds is None else rounds
    )
    return summary if found == wanted else None


def make_transport(
    run: MeasuredRun,
    components: int,
    covariance: str,
    ranks: Ranks,
    *,
    seed: int = 0,
    rounds: int = 0,
    steal: bool = False,
) -> TransportSummary:
    """Fits a transport and writes it to `transport_folder`, unless the same was fitted before.

    All processes take part; the rounds of monotone maps, of which each looks at all its images at once, are fitted by
    the first to at most 10^8 pixels of training images. steal: takes the folder from another job that fits one there.
    Raises InputError where there is one, or the mixture is missing, or not the same on every process.
    """
    mixture = ranks.agree(lambda: run.mixture(components, covariance))
    wanted = _dependencies(run, mixture, seed, rounds)
    facts = {name: str(value) for name, value in dataclasses.asdict(wanted).items()}
    ranks.refuse_differences(facts, "use a run folder on a disk that all machines share, and the same shards")
    found = fitted_before(run, components, covariance, seed=seed, rounds=rounds)
    if not ranks.any(found is None) and found is not None:
        return found
    folder = transport_folder(run, components, covariance)
    with held_by_main(folder.parent, ranks, folder.name, steal=steal) as lease:
        return _fit_and_write(run, mixture, folder, ranks, wanted, lease)


def _fit_and_write(
    run: MeasuredRun, mixture: MixtureDensity, folder: Path, ranks: Ranks, wanted: Dependencies, lease: Lease | None
) -> TransportSummary:
    """lease: on the folder, on the first process."""
    n = run.manifest.num_samples(run.config.data.train_split)
    with Progress(f"transport, {run.weights} weights", n, show=ranks.is_main) as bar:
        fitted = fit_transport(run, mixture, ranks, seed=wanted.seed, progress=bar.update)
    transport = fitted.transport
    summary = TransportSummary(
        depends_on=wanted,
        directions=transport.maps.shape[1],
        maps=len(transport.maps),
        square_error=fitted.square_error,
        shared=fitted.shared,
        images=fitted.images,
    )
    if lease is not None:
        tensors = {name: getattr(transport, name) for name in TENSORS}
        if wanted.rounds:
            fitted_rounds = marginals_after(run, transport, wanted.rounds, ranks, seed=wanted.seed)
            tensors |= {f"marginal_{name}": values for name, values in vars(fitted_rounds).items()}
        lease.check()
        _FILES.write(folder, {name: t for name, t in tensors.items() if t is not None}, dataclasses.asdict(summary))
    ranks.barrier()
    return summary


def load_transport(run: MeasuredRun, components: int, covariance: str) -> Transport:
    """The transport of a run. Raises InputError where it was not fitted, is damaged, or is of another mixture."""
    folder = transport_folder(run, components, covariance)
    words = f"`python -m eval transport --run {shlex.quote(str(run.folder))} --mixture {components}"
    summary = _summary(folder)
    if summary is not None and summary.depends_on.rounds:
        words += f" --rounds {summary.depends_on.rounds}"
    words += f"{'' if covariance == 'full' else f' --covariance {covariance}'}"
    words += f"{'' if run.weights == 'final' else f' --weights {run.weights}'}`"
    mixture = run.mixture(components, covariance)
    tensors, _ = _FILES.read(folder, f"fit it with {words}")
    if fitted_before(run, components, covariance) is None:
        raise InputError(f"{folder}: the transport is of other weights or another mixture; fit it again with {words}")
    rounds = {name: tensors.pop(f"marginal_{name}") for name in ("source", "target") if f"marginal_{name}" in tensors}
    try:
        marginals = Marginals(**rounds) if rounds else None
        return Transport(mixture=mixture, basis=tensors.pop("basis", None), marginals=marginals, **tensors)
    except TypeError as error:
        raise _FILES.damaged(folder, str(error)) from error


def transported_density(run: MeasuredRun, components: int, covariance: str) -> LoadedDensity:
    """The mixture q_hat of the run's codes, whose mean images are transported."""
    transport = load_transport(run, components, covariance)
    parameters = transport.mixture.parameters
    return LoadedDensity(
        sampler=mixture_sampler(parameters),
        finish=transport.apply,
        walk=transport.walk,
        tempered=partial(mixture_sampler, parameters),
        digest=transport.digest,
    )


def _summary(folder: Path) -> TransportSummary | None:
    record: dict[str, Any] | None = _FILES.read_record(folder)
    if record is None:
        return None
    try:
        depends_on = Dependencies(**record["depends_on"])
        known = {field.name for field in dataclasses.fields(TransportSummary)}
        facts = {name: value for name, value in record.items() if name in known}
        return TransportSummary(**facts | {"depends_on": depends_on, "images": tuple(record["images"])})
    except (KeyError, TypeError) as error:
        raise _FILES.damaged(folder, f"{_FILES.record}: {error}") from error


def _dependencies(run: MeasuredRun, mixture: MixtureDensity, seed: int, rounds: int) -> Dependencies:
    return Dependencies(
        checkpoint=run.checkpoint, data=run.manifest.hash, mixture=mixture_digest(mixture), seed=seed, rounds=rounds
    )
