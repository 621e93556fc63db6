"""Checkpoints that are complete or absent, and that contain no pickle (contract 5 of the design).

checkpoints/IMAGES/ holds model.safetensors (weights and buffers), training.safetensors (optimiser, averages, running
sums), state.json (`RunState`) and COMPLETE, which is written last and contains the checksums of the others. Tensors
have the names of the model's parameters, so any engine and world size can load them.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from data_shards.io.atomic import replace_folder, write_bytes, write_json
from data_shards.io.errors import InputError
from trainer.process_group import Ranks

_MODEL, _TRAINING, _STATE, _COMPLETE = "model.safetensors", "training.safetensors", "state.json", "COMPLETE"


@dataclass(frozen=True, kw_only=True)
class StageState:
    """Where training stands within its stages."""

    stage: int = 1
    """1 or 2."""
    images: int = 0
    """Images seen within the stage."""
    smoothed: float | None = None
    """Exponentially smoothed held-out ELBO in nats per image; None before the stage's first check."""
    without_gain: int = 0
    """Checks in a row whose relative gain was below eps."""
    ended: str = ""
    """Why the stage ended: "cap", "converged" or "collapsed"; empty while it runs."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands: the content of state.json."""

    images: int
    """Images seen by the run."""
    stages: StageState
    per_pixel: bool
    """Whether the model has a variance head."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    manifest: str
    """Hash of the shard set."""
    bad_steps: int
    """Updates in a row, up to this one, that were skipped because a number was not finite."""
    substituted: int
    """Unreadable images that others have replaced so far."""
    seed: int
    world_size: int
    """Processes that trained; any other number may continue."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RunState":
        """The state in the parsed content of a state.json."""
        stages, shape = StageState(**content["stages"]), tuple(content["image_shape"])
        return cls(**{**content, "stages": stages, "image_shape": shape})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One moment of a run."""

    model: dict[str, Tensor]
    """Weights and buffers by name."""
    training: dict[str, Tensor]
    """Tensors that only training needs."""
    state: RunState


def checkpoint_folder(run: Path, images: int) -> Path:
    """checkpoints/IMAGES of a run folder; sorted names are in the order of images."""
    return run / "checkpoints" / f"{images:012d}"


def complete_checkpoints(run: Path) -> list[Path]:
    """The folders of a run's complete checkpoints, oldest first."""
    return sorted(path.parent for path in (run / "checkpoints").glob(f"[0-9]*/{_COMPLETE}"))


def write(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint, valid once its COMPLETE exists. Returns its folder."""
    final = checkpoint_folder(run, checkpoint.state.images)
    beside = final.with_name(f".{final.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    contents = {
        _MODEL: save({name: value.contiguous() for name, value in checkpoint.model.items()}),
        _TRAINING: save({name: value.contiguous() for name, value in checkpoint.training.items()}),
        _STATE: json.dumps(asdict(checkpoint.state), indent=1).encode(),
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
    """The bytes of a file of a checkpoint. Raises InputError where they do not match its checksum."""
    try:
        sums = json.loads((folder / _COMPLETE).read_text())
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be read ({error}); remove this folder to use an earlier one") from error
    if not isinstance(sums, dict) or sums.get(name) != hashlib.sha256(content).hexdigest():
        raise InputError(f"{folder / name}: does not match its checksum; remove {folder} to use an earlier checkpoint")
    return content


def read_state(folder: Path) -> RunState:
    """state.json of a checkpoint. Raises InputError where it is damaged."""
    return RunState.from_json(json.loads(_verified(folder, _STATE)))


def read_model(folder: Path) -> dict[str, Tensor]:
    """The weights and buffers of a checkpoint, on the CPU. Raises InputError where they are damaged."""
    return load(_verified(folder, _MODEL))


def read_training(folder: Path) -> dict[str, Tensor]:
    """The tensors that only training needs, on the CPU. Raises InputError where they are damaged."""
    return load(_verified(folder, _TRAINING))


def read(folder: Path) -> Checkpoint:
    """A whole checkpoint. Raises InputError, naming the file, where anything is damaged."""
    state = read_state(folder)
    return Checkpoint(model=read_model(folder), training=read_training(folder), state=state)


def newest_undamaged(run: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest undamaged checkpoint or None, and a line for each damaged one that was skipped."""
    damaged: list[str] = []
    for folder in reversed(complete_checkpoints(run)):
        try:
            return read(folder), tuple(damaged)
        except InputError as error:
            damaged.append(str(error))
    return None, tuple(damaged)


def _ends_stage(folder: Path) -> bool:
    try:
        return bool(read_state(folder).stages.ended)
    except InputError:
        return False  # damaged, so useless


def save_checkpoint(run: Path, checkpoint: Checkpoint, ranks: Ranks, *, keep_last: int) -> None:
    """Writes a checkpoint from the main process and removes older ones; every process calls it.

    keep_last: how many of the newest remain beside the ends of stages. Raises RuntimeError where the processes' weights
    differ, and the OSError of a failed write; all processes end then.
    """
    if not ranks.equal(fingerprint(checkpoint.model)):
        images = checkpoint.state.images
        raise RuntimeError(f"the processes' weights differ after {images} images; no checkpoint was written")

    def write_and_prune() -> None:
        if ranks.is_main:
            write(run, checkpoint)
            prune(run, keep_last)

    ranks.agree(write_and_prune)


def prune(run: Path, keep_last: int) -> None:
    """Removes all but the newest `keep_last` checkpoints and the ends of stages, and removes incomplete ones."""
    complete = complete_checkpoints(run)
    for folder in complete[:-keep_last]:
        if not _ends_stage(folder):
            shutil.rmtree(folder)
    for folder in (run / "checkpoints").iterdir():
        if folder.is_dir() and not (folder / _COMPLETE).exists():
            shutil.rmtree(folder)


def fingerprint(tensors: dict[str, Tensor]) -> int:
    """A 62-bit digest of names, shapes and exact values, for comparisons."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 2
