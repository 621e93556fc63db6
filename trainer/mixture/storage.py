"""A fitted mixture on disk: mixture.safetensors holds the numbers, mixture.json, written last, says what they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from data_shards.io import atomic
from data_shards.io.errors import InputError
from trainer.mixture.parameters import Parameters

_FORMAT = 1


def save(folder: str | Path, parameters: Parameters, facts: dict[str, Any]) -> None:
    """Writes a mixture into `folder`, in place of the one that may be there. facts: anything JSON can hold."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(parameters, name).cpu().contiguous() for name in ("weights", "means", "covariances")}
    data = save_tensors(tensors)
    record = {
        "format": _FORMAT,
        "covariance_type": parameters.covariance_type,
        "n_components": parameters.n_components,
        "dimensions": parameters.dim,
        "sha256": hashlib.sha256(data).hexdigest(),
        **facts,
    }
    (folder / "mixture.json").unlink(missing_ok=True)
    atomic.write_bytes(folder / "mixture.safetensors", data)
    atomic.write_json(folder / "mixture.json", record)


def load(folder: str | Path) -> tuple[Parameters, dict[str, Any]]:
    """Reads what `save` wrote: parameters and facts. Raises InputError where files are missing, old or damaged."""
    record_file, tensor_file = Path(folder) / "mixture.json", Path(folder) / "mixture.safetensors"
    try:
        record = json.loads(record_file.read_text())
        data = tensor_file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename}: no fitted mixture is here; fit one with: python -m trainer.mixture --run RUN"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{record_file}: not valid JSON ({error}); fit the mixture again") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise InputError(f"{record_file}: this is not a mixture of format {_FORMAT}; fit it again")
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise InputError(f"{tensor_file}: the content is not what mixture.json describes; fit the mixture again")
    return Parameters(covariance_type=record["covariance_type"], **load_tensors(data)), record
