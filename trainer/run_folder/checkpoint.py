"""Checkpoints that are complete or absent, and that contain no pickle (contract 5 of the design).

checkpoints/IMAGES/ holds model.safetensors (weights and buffers), training.safetensors (optimiser, averages, running
sums), state.json (`RunState`), config.yaml as the run had it then, and COMPLETE, which is written last and contains the
checksums of the others. Tensors have the names of the model's parameters, so any engine and world size can load them.
The folder is filled under another name and renamed, and none is ever replaced: where one of IMAGES exists, as after
damage, the next is IMAGES-2.
"""

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from data_shards.io.atomic import sync_folder, write_bytes, write_json
from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.regular_files import read_regular
from data_shards.io.removal import holds_only
from trainer.config.sections import StageConfig
from trainer.run_folder.finite import first_not_finite

_MODEL, _TRAINING, _STATE, _COMPLETE = "model.safetensors", "training.safetensors", "state.json", "COMPLETE"
_CONFIGURATION = "config.yaml"
_NAMES = "|".join(map(re.escape, (_MODEL, _TRAINING, _STATE, _CONFIGURATION, _COMPLETE)))
_FILES = re.compile(rf"({_NAMES})|\.({_NAMES})\.\d+\.partial")  # whole, and being written
IMAGES = r"(?:\d{12}|[1-9]\d{12,})"
"""The expression for the images in the name of a checkpoint, from 10^12 on too."""
_NAME = re.compile(rf"({IMAGES})(?:-(\d+))?")


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
    check_due: bool = False
    """Whether the held-out ELBO is still to be measured here, because the run was stopped after the update."""
    look_due: bool = False
    """The same where the measurement cannot end the stage."""
    best_elbo: float | None = None
    """Largest held-out ELBO of the stage so far, in nats per image; None before its first measurement."""
    best_images: int | None = None
    """Images that the run had seen then; the checkpoint of that name holds the weights."""

    def going_on(self, config: StageConfig, train_images: int) -> "StageState":
        """The state of the run's last stage under `config`: not ended where that raises what had ended it.

        train_images: of an epoch.
        """
        raised = self.ended == "cap" or (self.ended == "converged" and self.without_gain < config.patience)
        return replace(self, ended="") if raised and self.images < config.cap(train_images) else self


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
    configuration: str = ""
    """The text of config.yaml at this moment; it is written, but not read with the tensors."""

    def copied(self) -> "Checkpoint":
        """The same with tensors of its own, on the same devices."""

        def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.detach().clone() for name, value in tensors.items()}

        return replace(self, model=copies(self.model), training=copies(self.training))


def checkpoint_folder(run: Path, images: int) -> Path:
    """checkpoints/IMAGES of a run folder."""
    return run / "checkpoints" / f"{images:012d}"


def place_of(folder: Path) -> tuple[int, int] | None:
    """The images of a checkpoint and its number among those of this place, by its name; None for other folders."""
    match = _NAME.fullmatch(folder.name)
    return (int(match[1]), int(match[2] or 1)) if match and not folder.is_symlink() else None


def complete_checkpoints(run: Path) -> list[Path]:
    """The folders of a run's complete checkpoints, oldest first, without copies, links and folders of others."""
    found = [(place_of(path.parent), path.parent) for path in (run / "checkpoints").glob(f"*/{_COMPLETE}")]
    placed = sorted((place, folder) for place, folder in found if place is not None)
    return [folder for _, folder in placed if not _of_another_place(folder)]


def checkpoints_not_taken(run: Path) -> list[tuple[Path, str]]:
    """Folders with the name of a checkpoint from which nothing is taken though they hold one, oldest first, and why.

    They are links, or were copied or renamed to the name of another place.
    """
    found = [path.parent for path in (run / "checkpoints").glob(f"*/{_COMPLETE}")]
    named = sorted((int(match[1]), path) for path in found if (match := _NAME.fullmatch(path.name)))
    reasons = [(path, _of_another_place(path)) for _, path in named]
    return [(path, reason) for path, reason in reasons if reason]


def _of_another_place(folder: Path) -> str:
    """Why a folder with COMPLETE and the name of a checkpoint is not the one of its place; empty where it is.

    Damage is found where more than the state is read.
    """
    if folder.is_symlink():
        return "is a link"
    try:
        images = read_state(folder).images
    except InputError:
        return ""
    place = place_of(folder)
    return "" if place is None or place[0] == images else f"holds the checkpoint after {images:,} images"


def passed_over(run: Path, images: int) -> tuple[str, ...]:
    """A line for each folder in the place of a checkpoint after more than `images` that is none of this place.

    It is a link, or without COMPLETE, or holds a checkpoint of another place.
    """
    found = []
    for path in sorted((run / "checkpoints").glob("*")):
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) > images and path.is_dir():
            if (path / _COMPLETE).exists():
                reason = _of_another_place(path)
            else:
                reason = "" if path.is_symlink() else f"has no {_COMPLETE}"
            if reason:
                found.append(f"{path}: {reason}, so it was passed over")
    return tuple(found)


def is_ours(folder: Path) -> bool:
    """Whether a folder with a checkpoint's name is one: plain files that a checkpoint has and no others."""
    if not holds_only(folder, _FILES):
        return False
    place = place_of(folder)
    try:
        return place is None or read_state(folder).images == place[0]
    except OfAnotherVersion:
        return False
    except InputError:
        return True  # unfinished or damaged


def write(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint beside those that exist. Returns its folder, which appears when it is complete."""
    images = checkpoint.state.images
    contents = {
        _MODEL: save({name: value.contiguous() for name, value in checkpoint.model.items()}),
        _TRAINING: save({name: value.contiguous() for name, value in checkpoint.training.items()}),
        _STATE: json.dumps(_to_json(checkpoint.state), indent=1).encode(),
    }
    if checkpoint.configuration:
        contents[_CONFIGURATION] = checkpoint.configuration.encode()
    beside = _free(checkpoint_folder(run, images).with_name(f".{images:012d}.partial"))
    beside.mkdir(parents=True)
    try:
        for name, content in contents.items():
            write_bytes(beside / name, content)
        write_json(
            beside / _COMPLETE, {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        )
        final = beside.rename(_free(checkpoint_folder(run, images)))
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(final.parent)
    return final


def _free(folder: Path) -> Path:
    """`folder`, or the first of its numbered names that is free. Removes an unfinished checkpoint that has the name."""
    stem, ending = folder.name.removesuffix(".partial"), ".partial" if folder.name.endswith(".partial") else ""
    number = 1
    while folder.is_symlink() or folder.exists():
        if (ending or not (folder / _COMPLETE).exists()) and is_ours(folder):
            shutil.rmtree(folder)
        else:
            number += 1
            folder = folder.with_name(f"{stem}-{number}{ending}")
    return folder


def _to_json(state: RunState) -> dict[str, Any]:
    """The content of state.json; what earlier versions did not know is in it only where it says something."""
    content, nothing = asdict(state), asdict(StageState())
    for name in ("check_due", "look_due", "best_elbo", "best_images"):
        if content["stages"][name] == nothing[name]:
            del content["stages"][name]
    return content


def _verified(folder: Path, name: str, *, since_later: bool = False) -> bytes:
    """The bytes of a file of a checkpoint. Raises InputError where they do not match its checksum.

    since_later: whether earlier versions did not write the file; it is empty then.
    """
    try:
        sums = json.loads(read_regular(folder / _COMPLETE))
        if since_later and isinstance(sums, dict) and name not in sums:
            return b""
        content = read_regular(folder / name)
    except (OSError, ValueError) as error:
        raise_machine_fault(error, folder / name)
        raise InputError(f"{folder}: cannot be read ({error}); remove this folder to use an earlier one") from error
    if not isinstance(sums, dict) or sums.get(name) != hashlib.sha256(content).hexdigest():
        raise InputError(f"{folder / name}: does not match its checksum; remove {folder} to use an earlier checkpoint")
    return content


class OfAnotherVersion(InputError):
    """A checkpoint is whole, and this version of the trainer does not know what its state says."""


def read_state(folder: Path) -> RunState:
    """state.json of a checkpoint. Raises InputError where it is damaged, OfAnotherVersion where it is not ours."""
    content = _verified(folder, _STATE)
    try:
        return RunState.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise OfAnotherVersion(
            f"{folder / _STATE}: was written by another version of the trainer ({reason}); go on with that one, or "
            "move the folder out of checkpoints to use an earlier one"
        ) from error


def configuration_file(folder: Path) -> Path | None:
    """The copy of config.yaml in a checkpoint; None in one of earlier versions. Raises InputError if it is damaged."""
    return folder / _CONFIGURATION if _verified(folder, _CONFIGURATION, since_later=True) else None


def read_model(folder: Path) -> dict[str, Tensor]:
    """The weights and buffers of a checkpoint, on the CPU. Raises InputError where they are damaged."""
    return load(_verified(folder, _MODEL))


def read_training(folder: Path) -> dict[str, Tensor]:
    """The tensors that only training needs, on the CPU. Raises InputError where they are damaged."""
    return load(_verified(folder, _TRAINING))


def read(folder: Path) -> Checkpoint:
    """A whole checkpoint. Raises InputError, naming the file, where anything is damaged or not finite."""
    found = Checkpoint(model=read_model(folder), training=read_training(folder), state=read_state(folder))
    if (name := first_not_finite(found.model) or first_not_finite(found.training)) is not None:
        raise InputError(f"{folder}: {name} is not finite; remove this folder to use an earlier checkpoint")
    return found


def newest_undamaged(run: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest undamaged checkpoint or None, and a line for each damaged one that was skipped.

    Raises OfAnotherVersion for one that is whole and cannot be read: it holds work that an earlier one has not.
    """
    damaged: list[str] = []
    for folder in reversed(complete_checkpoints(run)):
        try:
            return read(folder), tuple(damaged)
        except OfAnotherVersion:
            raise
        except InputError as error:
            damaged.append(str(error))
    return None, tuple(damaged)


def best_of(folder: Path) -> Path | None:
    """The checkpoint that `folder` names as the best of its stage up to then; None where there is none."""
    try:
        images = read_state(folder).stages.best_images
    except InputError:
        return None
    return newest_of(folder.parent.parent, images) if images is not None else None


def newest_of(run: Path, images: int) -> Path | None:
    """The last complete checkpoint that was written after so many images of a run; None without one."""
    here = [folder for folder in complete_checkpoints(run) if (place_of(folder) or (-1, 0))[0] == images]
    return here[-1] if here else None


def fingerprint(tensors: dict[str, Tensor]) -> int:
    """A 62-bit digest of names, shapes and exact values, for comparisons."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return int.from_bytes(digest.digest(), "little") >> 2
