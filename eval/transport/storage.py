"""RUN/transports/K-COVARIANCE[-stage1]: transport.safetensors, and summary.json, which is written last."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from data_shards.io.atomic import write_bytes, write_json
from data_shards.io.errors import InputError
from eval.run import MeasuredRun, mixture_digest
from eval.transport.fitting import FittedTransport
from eval.transport.transport import Transport
from trainer.mixture import GaussianMixture
from trainer.mixture.folder import mixture_folder
from trainer.run_folder.checkpoint import fingerprint

_TENSORS, _SUMMARY = "transport.safetensors", "summary.json"


def transport_folder(run: MeasuredRun, components: int, covariance: str) -> Path:
    """RUN/transports, by the name that the mixture's folder has."""
    return run.folder / "transports" / mixture_folder(run.folder, components, covariance, run.weights).name


def facts(run: MeasuredRun, mixture: GaussianMixture, seed: int) -> dict[str, Any]:
    """What a transport depends on."""
    return {
        "checkpoint": f"{fingerprint(run.model.state_dict()):016x}",
        "data": run.manifest.hash,
        "mixture": mixture_digest(mixture),
        "seed": seed,
    }


def save_transport(folder: Path, fitted: FittedTransport, depends_on: dict[str, Any]) -> None:
    """Writes a fitted transport. depends_on: its `facts`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SUMMARY).unlink(missing_ok=True)
    transport = fitted.transport
    tensors = {name: getattr(transport, name) for name in ("source", "target", "maps", "group", "basis")}
    write_bytes(folder / _TENSORS, save({name: t.contiguous() for name, t in tensors.items() if t is not None}))
    summary = {"square_error": fitted.square_error, "shared": fitted.shared, "images": list(fitted.images)}
    write_json(
        folder / _SUMMARY,
        {"depends_on": depends_on, "directions": transport.maps.shape[1], "maps": len(transport.maps)} | summary,
    )


def transport_summary(folder: Path) -> dict[str, Any] | None:
    """What was said of a transport, or None where there is none."""
    path = folder / _SUMMARY
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete the folder and fit it again") from error
    return content


def fits(run: MeasuredRun, mixture: GaussianMixture, summary: dict[str, Any]) -> bool:
    """Whether a transport of that summary is of these weights and this mixture."""
    depends_on: dict[str, Any] = summary["depends_on"]
    return depends_on == facts(run, mixture, depends_on["seed"])


def load_transport(run: MeasuredRun, components: int, covariance: str) -> Transport:
    """The transport of a run. Raises InputError where it was not fitted, is damaged, or is of another mixture."""
    folder, mixture = transport_folder(run, components, covariance), run.mixture(components, covariance)
    summary = transport_summary(folder)
    words = f"`python -m eval transport --run {run.folder} --mixture {components}"
    words += f"{'' if covariance == 'full' else f' --covariance {covariance}'}"
    words += f"{'' if run.weights == 'final' else f' --weights {run.weights}'}`"
    if summary is None:
        raise InputError(f"{folder}: no transport is here; fit it with {words}")
    if not fits(run, mixture, summary):
        raise InputError(f"{folder}: the transport is of other weights or another mixture; fit it again with {words}")
    try:
        tensors = load((folder / _TENSORS).read_bytes())
        return Transport(mixture=mixture, basis=tensors.pop("basis", None), **tensors)
    except (OSError, SafetensorError, TypeError) as error:
        raise InputError(f"{folder}: the transport is damaged ({error}); delete the folder and fit again") from error
