"""RUN/transports/K-COVARIANCE[-stage1]: transport.safetensors, and summary.json, which is written last."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.run import MeasuredRun, mixture_digest
from eval.transport.fitting import fit_transport
from eval.transport.transport import Transport
from trainer.mixture.density import MixtureDensity
from trainer.mixture.fitted import mixture_folder
from trainer.process_group import Ranks
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
    run: MeasuredRun, components: int, covariance: str, *, seed: int | None = None
) -> TransportSummary | None:
    """The run's transport where it was fitted to these weights and this mixture, else None.

    seed: that of its latents; any where none is given. Raises InputError where the mixture is missing.
    """
    summary = _summary(transport_folder(run, components, covariance))
    if summary is None:
        return None
    mixture = run.mixture(components, covariance)
    wanted = _dependencies(run, mixture, summary.depends_on.seed if seed is None else seed)
    return summary if summary.depends_on == wanted else None


def make_transport(
    run: MeasuredRun, components: int, covariance: str, ranks: Ranks, *, seed: int = 0
) -> TransportSummary:
    """Fits a transport and writes it to `transport_folder`, unless the same was fitted before.

    All processes take part. Raises InputError where the mixture is missing.
    """
    found = fitted_before(run, components, covariance, seed=seed)
    if not ranks.any(found is None) and found is not None:
        return found
    mixture = run.mixture(components, covariance)
    n = run.manifest.num_samples(run.config.data.train_split)
    with Progress(f"transport, {run.weights} weights", n, show=ranks.is_main) as bar:
        fitted = fit_transport(run, mixture, ranks, seed=seed, progress=bar.update)
    transport = fitted.transport
    summary = TransportSummary(
        depends_on=_dependencies(run, mixture, seed),
        directions=transport.maps.shape[1],
        maps=len(transport.maps),
        square_error=fitted.square_error,
        shared=fitted.shared,
        images=fitted.images,
    )
    if ranks.is_main:
        tensors = {name: getattr(transport, name) for name in ("source", "target", "maps", "group", "basis")}
        folder = transport_folder(run, components, covariance)
        _FILES.write(folder, {name: t for name, t in tensors.items() if t is not None}, dataclasses.asdict(summary))
    ranks.barrier()
    return summary


def load_transport(run: MeasuredRun, components: int, covariance: str) -> Transport:
    """The transport of a run. Raises InputError where it was not fitted, is damaged, or is of another mixture."""
    folder = transport_folder(run, components, covariance)
    words = f"`python -m eval transport --run {run.folder} --mixture {components}"
    words += f"{'' if covariance == 'full' else f' --covariance {covariance}'}"
    words += f"{'' if run.weights == 'final' else f' --weights {run.weights}'}`"
    mixture = run.mixture(components, covariance)
    tensors, _ = _FILES.read(folder, f"fit it with {words}")
    if fitted_before(run, components, covariance) is None:
        raise InputError(f"{folder}: the transport is of other weights or another mixture; fit it again with {words}")
    try:
        return Transport(mixture=mixture, basis=tensors.pop("basis", None), **tensors)
    except TypeError as error:
        raise _FILES.damaged(folder, str(error)) from error


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


def _dependencies(run: MeasuredRun, mixture: MixtureDensity, seed: int) -> Dependencies:
    return Dependencies(checkpoint=run.checkpoint, data=run.manifest.hash, mixture=mixture_digest(mixture), seed=seed)
