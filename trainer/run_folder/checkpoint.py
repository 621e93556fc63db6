"""Checkpoints that are whole or not there, and that trust no pickle (contract 5 of the design).

checkpoints/IMAGES/ holds model.safetensors (weights and buffers), training.safetensors (optimiser, averages, running
sums), state.json (stages, position, what belongs to them) and COMPLETE, which is written last and carries the
checksums of the others. Names of tensors are those of the model, so any engine and world size can load them.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from data_shards.io.atomic import replace_folder, write_bytes, write_json
from data_shards.io.errors import InputError

_MODEL, _TRAINING, _STATE, _COMPLETE = "model.safetensors", "training.safetensors", "state.json", "COMPLETE"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One moment of a run."""

    images: int
    """Images seen by the run."""
    model: dict[str, Tensor]
    """Weights and buffers by name."""
    training: dict[str, Tensor]
    """Tensors that only training needs."""
    state: dict[str, Any]
    """Everything else, as JSON."""


def checkpoint_folder(run: Path, images: int) -> Path:
    """checkpoints/IMAGES of a run folder; the names sort by age."""
    return run / "checkpoints" / f"{images:012d}"


def complete_checkpoints(run: Path) -> list[Path]:
    """The folders of a run's complete checkpoints, oldest first."""
    return sorted(path.parent for path in (run / "checkpoints").glob(f"[0-9]*/{_COMPLETE}"))


def write(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint; it counts from the moment its COMPLETE is there. Returns its folder."""
    final = checkpoint_folder(run, checkpoint.images)
    beside = final.with_name(f".{final.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    contents = {
        _MODEL: save({name: value.contiguous() for name, value in checkpoint.model.items()}),
        _TRAINING: save({name: value.contiguous() for name, value in checkpoint.training.items()}),
        _STATE: json.dumps({"images": checkpoint.images, **checkpoint.state}, indent=1).encode(),
    }
    try:
        for name, content in contents.items():
            write_bytes(beside / name, content)
        replace_folder(beside, final)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    write_json(final / _COMPLETE, {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    return final


def _verified(folder: Path, name: str) -> bytes:
    """The bytes of a file of a checkpoint, compared with its checksum."""
    try:
        sums = json.loads((folder / _COMPLETE).read_text())
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be read ({error}); remove this folder to use an earlier one") from error
    if not isinstance(sums, dict) or sums.get(name) != hashlib.sha256(content).hexdigest():
        raise InputError(f"{folder / name}: does not match its checksum; remove {folder} to use an earlier checkpoint")
    return content


def read_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint. Raises InputError where it is damaged."""
    return json.loads(_verified(folder, _STATE))


def read_model(folder: Path) -> dict[str, Tensor]:
    """The weights and buffers of a checkpoint, on the CPU. Raises InputError where they are damaged."""
    return load(_verified(folder, _MODEL))


def read_training(folder: Path) -> dict[str, Tensor]:
    """The tensors that only training needs, on the CPU. Raises InputError where they are damaged."""
    return load(_verified(folder, _TRAINING))


def read(folder: Path) -> Checkpoint:
    """A whole checkpoint. Raises InputError, naming the file, where anything is damaged."""
    state = read_state(folder)
    return Checkpoint(images=state["images"], model=read_model(folder), training=read_training(folder), state=state)


def newest_sound(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged checkpoint or None, and a line for each damaged one that was passed over."""
    damaged: list[str] = []
    for folder in reversed(complete_checkpoints(run)):
        try:
            return read(folder), damaged
        except InputError as error:
            damaged.append(str(error))
    return None, damaged


def _ends_stage(folder: Path) -> bool:
    try:
        return bool(read_state(folder)["stages"]["ended"])
    except InputError:
        return False  # damaged, so of no use to anybody


def prune(run: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, the ends of stages, and what was cut off in writing."""
    complete = complete_checkpoints(run)
    for folder in complete[:-keep]:
        if not _ends_stage(folder):
            shutil.rmtree(folder)
    for folder in (run / "checkpoints").iterdir():
        if folder.is_dir() and not (folder / _COMPLETE).exists():
            shutil.rmtree(folder)


def fingerprint(tensors: dict[str, Tensor]) -> int:
    """A 62-bit digest of names, shapes and exact values, to compare replicas."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 2
