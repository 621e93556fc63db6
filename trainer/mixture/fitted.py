"""A fitted mixture, and the folder that it lies in: mixture.safetensors, and mixture.json, written last."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from data_shards.io.errors import InputError
from data_shards.io.regular_files import kind_if_no_file, read_regular
from trainer.mixture.density import MixtureDensity
from trainer.mixture.packed import packed_size
from trainer.mixture.parameters import Parameters
from trainer.mixture.settings import COVARIANCE_TYPES, Settings
from trainer.run_folder.latents import WEIGHTS
from trainer.run_folder.tensor_folder import TensorFolder

MIXTURE = TensorFolder(noun="fitted mixture", tensors="mixture.safetensors", record="mixture.json")
SUMMARY = "summary.json"
"""What is known of a run's mixture beside its parameters: what it was fitted to, and its likelihoods."""
_FORMAT = 1
_REMEDY = "fit one with: python -m trainer.mixture --run RUN"


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """What a fit found beside the parameters."""

    converged: bool
    """Whether the last iteration gained less than the tolerance."""
    n_iter: int
    """EM iterations."""
    history: list[dict[str, float]]
    """One record an iteration: beta, the inverse temperature; log_likelihood and, at beta = 1 with held-out points,
    held_out, in nats per point, of the mixture before the iteration's M-step; seconds."""
    prior_strength: float
    """nu of the last M-step, as given or chosen."""
    inflation: float
    """Factor on all covariances, as given or chosen."""
    truncation_loss: float | None
    """Nats per training point that the truncated E-step left out at the end; None where the E-step was exact."""
    seconds: dict[str, float]
    """Wall time by phase."""
    alive: int | None = None
    """Components with an expected point or more; None where the last M-step had no exact pass."""
    remarks: list[str] = field(default_factory=list)
    """What a user should know: a choice at the end of its range, components without points."""


@dataclass(frozen=True, kw_only=True)
class FittedMixture:
    """Parameters in the data's coordinates, the settings of their fit, and what it found."""

    parameters: Parameters
    settings: Settings
    record: FitRecord | None
    """None where the parameters were given, not fitted."""

    @property
    def density(self) -> MixtureDensity:
        """The mixture as a density of tensors."""
        return MixtureDensity(self.parameters)


def mixture_folder(run: str | Path, n_components: int, covariance_type: str = "full", weights: str = "final") -> Path:
    """RUN/mixtures/K-covariance, or RUN/mixtures/K-covariance-WEIGHTS for codes of others than the final ones."""
    if weights not in WEIGHTS:
        raise InputError(f"{weights!r} is unknown; use one of {', '.join(WEIGHTS)}", parameter="weights")
    name = f"{n_components}-{covariance_type}"
    return Path(run) / "mixtures" / (name if weights == "final" else f"{name}-{weights}")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of the mixture in `folder`, or None where there is none, or a damaged one, which is named."""
    path = folder / SUMMARY
    if not path.exists():
        return None
    try:
        if kind_if_no_file(path):
            raise ValueError("it is not a file")
        summary = json.loads(read_regular(path))
        if not isinstance(summary, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError) as error:
        print(f"warning: {path} is damaged ({error}) and passed over", file=sys.stderr, flush=True)
        return None
    return summary


def save_mixture(folder: str | Path, fitted: FittedMixture, *, of_former: Sequence[str] = ()) -> None:
    """Writes a mixture into `folder`, in place of the one that may be there. of_former: see `TensorFolder.write`."""
    parameters = fitted.parameters
    tensors = {name: getattr(parameters, name) for name in ("weights", "means", "covariances")}
    record: dict[str, Any] = {
        "format": _FORMAT,
        "covariance_type": parameters.covariance_type,
        "n_components": parameters.n_components,
        "dimensions": parameters.dim,
        "settings": asdict(fitted.settings),
    }
    record |= {} if fitted.record is None else asdict(fitted.record)
    MIXTURE.write(Path(folder), tensors, record, of_former=of_former)


def load_mixture(folder: str | Path, device: str | torch.device = "cpu") -> FittedMixture:
    """Reads what `save_mixture` wrote. Raises InputError where it is missing, damaged or of another format."""
    folder = Path(folder)
    stored = MIXTURE.read_record(folder)
    if stored is not None and stored.get("format") != _FORMAT:
        raise InputError(f"{folder / MIXTURE.record}: this is not a mixture of format {_FORMAT}; fit it again")
    tensors, stored = MIXTURE.read(folder, _REMEDY)
    try:
        if stored["covariance_type"] not in COVARIANCE_TYPES:
            raise KeyError(stored["covariance_type"])
        parameters = Parameters(covariance_type=stored["covariance_type"], **tensors)
        _require_shapes(parameters, stored["n_components"], stored["dimensions"])
        return FittedMixture(
            parameters=parameters.to(device), settings=Settings(**stored["settings"]), record=_fit_record(stored)
        )
    except (KeyError, TypeError, InputError) as error:
        raise MIXTURE.damaged(folder, f"{MIXTURE.record} has unknown or missing entries: {error}") from error


def _require_shapes(parameters: Parameters, k: int, dim: int) -> None:
    """Raises InputError where the tensors are not those of k components of so many dimensions and of their type."""
    kind = parameters.covariance_type
    columns = {"full": packed_size(dim), "tied": packed_size(dim), "diag": dim, "spherical": 1}[kind]
    shapes = {"weights": (k,), "means": (k, dim), "covariances": (1 if kind == "tied" else k, columns)}
    for name, shape in shapes.items():
        if (found := tuple(getattr(parameters, name).shape)) != shape:
            raise InputError(f"a {kind} mixture of {k} components in {dim} dimensions has {name} {shape}, not {found}")


def _fit_record(stored: dict[str, Any]) -> FitRecord | None:
    names = [field.name for field in fields(FitRecord)]
    return FitRecord(**{name: stored[name] for name in names if name in stored}) if "n_iter" in stored else None
