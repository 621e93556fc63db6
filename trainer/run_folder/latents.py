"""Latent codes of a run on disk: the posterior q(z|x) = N(mean, diag(std^2)) of every image of a split.

RUN/latents/SPLIT/part-00000-of-00002.safetensors holds what one process encoded; codes of the weights at the end of
stage 1 are in RUN/latents/SPLIT-stage1, of the best weights in RUN/latents/SPLIT-best. A part is written as a whole or
not at all, and a set of parts is read only if it is complete, so that a failed process leads to no smaller data set.
"""

import json
import re
import shlex
import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.partition import partition
from data_shards.io.regular_files import kind_if_no_file
from trainer.run_folder.checkpoint import fingerprint
from trainer.run_folder.configurations import own_splits
from trainer.run_folder.tensor_file import read_tensors

RECORD = "encoding.json"
"""What the parts of a folder were made from, written after the last of them by `python -m eval encode`."""
WEIGHTS = ("final", "stage1", "best")
_PART = re.compile(r"part-(\d{5})-of-(\d{5})\.safetensors")


class Latents(NamedTuple):
    """Posteriors of N images. mean, std: (N, D) float32, std above 0; index: (N,) int64, places in the split."""

    mean: Tensor
    std: Tensor
    index: Tensor  # type: ignore[assignment]  # tuple.index is not used on rows of tensors


def digest(codes: Latents) -> str:
    """16 hexadecimal digits that differ between different codes."""
    return f"{fingerprint({'mean': codes.mean, 'std': codes.std}):016x}"


def latents_folder(run: str | Path, split: str, *, weights: str = "final") -> Path:
    """The folder of the codes of `split`. weights: one of `WEIGHTS`. Raises InputError for another name."""
    if weights not in WEIGHTS:
        raise InputError(f"{weights!r} is unknown; use one of {', '.join(WEIGHTS)}", parameter="weights")
    return Path(run) / "latents" / (split if weights == "final" else f"{split}-{weights}")


def write(
    run: str | Path, split: str, latents: Latents, *, weights: str = "final", part: int = 0, parts: int = 1
) -> Path:
    """Writes part `part` of `parts` and returns its path. Parts of an earlier encoding with other `parts` are removed.

    Raises ValueError where shapes disagree or `part` is not in range(parts).
    """
    count = len(latents.index)
    if latents.mean.shape != latents.std.shape or latents.mean.ndim != 2 or len(latents.mean) != count:
        raise ValueError(f"mean {tuple(latents.mean.shape)}, std {tuple(latents.std.shape)}, index ({count},) disagree")
    if not 0 <= part < parts:
        raise ValueError(f"part {part} is not one of {parts} parts")
    folder = latents_folder(run, split, weights=weights)
    folder.mkdir(parents=True, exist_ok=True)
    for other in _part_files(folder):
        if other[1] != parts:
            (folder / _part_name(*other)).unlink(missing_ok=True)
    path = folder / _part_name(part, parts)
    tensors = {
        "mean": latents.mean.detach().to("cpu", torch.float32).contiguous(),
        "std": latents.std.detach().to("cpu", torch.float32).contiguous(),
        "index": latents.index.detach().to("cpu", torch.int64).contiguous(),
    }
    atomic.write_bytes(path, save(tensors))
    return path


def remove(run: str | Path, split: str, *, weights: str = "final") -> None:
    """Removes the codes of `split`, and nothing else that lies beside them."""
    folder = latents_folder(run, split, weights=weights)
    (folder / RECORD).unlink(missing_ok=True)
    for part in _part_files(folder):
        (folder / _part_name(*part)).unlink()


def encoded_from(run: str | Path, split: str, *, weights: str = "final") -> dict[str, Any] | None:
    """What the codes of `split` were made from: `checkpoint`, the digest of the weights; `data`, the hash of the
    manifest; `n`, the number of images. None where nothing is recorded, or the encoding is not finished."""
    path = latents_folder(run, split, weights=weights) / RECORD
    try:
        record = json.loads(path.read_text()) if path.is_file() else None
        return None if record is None else {name: record[name] for name in ("checkpoint", "data", "n")}
    except (FileNotFoundError, ValueError, RecursionError, KeyError, TypeError):
        return None


def origins(run: str | Path, *, weights: str = "final") -> dict[str, dict[str, Any] | None]:
    """`encoded_from` of the splits that the run trains on (`train`) and holds out (`valid`).

    Raises InputError where they were encoded by different weights.
    """
    train, valid = own_splits(run)
    found = {name: encoded_from(run, split, weights=weights) for name, split in (("train", train), ("valid", valid))}
    if len({record["checkpoint"] for record in found.values() if record}) > 1:
        raise InputError(f"{run}: the codes of splits {train} and {valid} are of different weights; encode both again")
    return found


def exists(run: str | Path, split: str, *, weights: str = "final") -> bool:
    """True if the run folder has codes of `split`, complete or not."""
    return bool(_part_files(latents_folder(run, split, weights=weights)))


def read(run: str | Path, split: str, *, weights: str = "final", part: int = 0, parts: int = 1) -> Latents:
    """Reads part `part` of `parts` of all images, in the order of their index.

    Raises InputError if codes are missing, incomplete, damaged or doubled.
    """
    files = _complete_parts(run, split, weights)
    pieces = [_read_part(file) for file in files]
    if len(widths := sorted({piece.mean.shape[1] for piece in pieces})) > 1:
        raise InputError(f"{files[0].parent}: parts of {widths} latents are mixed; {_remedy(run, weights)}")
    latents = Latents(*(torch.cat(tensors) for tensors in zip(*pieces, strict=True)))
    order = latents.index.argsort()
    ordered = latents.index[order]
    if (ordered[1:] == ordered[:-1]).any():
        twice = int(ordered[1:][ordered[1:] == ordered[:-1]][0])
        raise InputError(f"{files[0].parent}: image {twice} is encoded twice; {_remedy(run, weights)}")
    if (gaps := (ordered != torch.arange(len(ordered))).nonzero()).numel():
        lost, last = int(gaps[0]), int(ordered[-1])
        what = f"image {lost} has no code, and image {last} has one"
        raise InputError(f"{files[0].parent}: {what}; {_remedy(run, weights)}")
    own = partition(len(order), part, parts)
    rows = order[own.start : own.stop]
    return Latents(latents.mean[rows], latents.std[rows], latents.index[rows])


def _part_name(part: int, parts: int) -> str:
    return f"part-{part:05d}-of-{parts:05d}.safetensors"


def _part_files(folder: Path) -> list[tuple[int, int]]:
    """(part, parts) of every part file in `folder`, sorted."""
    names = (_PART.fullmatch(file.name) for file in folder.glob("part-*.safetensors"))
    return sorted((int(name[1]), int(name[2])) for name in names if name)


def _remedy(run: str | Path, weights: str) -> str:
    stage = "" if weights == "final" else f" --weights {weights}"
    return f"make the codes with: python -m eval encode --run {shlex.quote(str(run))}{stage}"


def _complete_parts(run: str | Path, split: str, weights: str) -> list[Path]:
    folder = latents_folder(run, split, weights=weights)
    found = _part_files(folder)
    if not found:
        raise InputError(f"{folder}: no codes of split {split!r} are here; {_remedy(run, weights)}")
    parts = found[0][1]
    if any(other != parts for _, other in found):
        raise InputError(f"{folder}: parts of two different encodings are mixed; {_remedy(run, weights)}")
    missing = sorted(set(range(parts)) - {part for part, _ in found})
    if missing:
        raise InputError(f"{folder / _part_name(missing[0], parts)}: this part is missing; {_remedy(run, weights)}")
    return [folder / _part_name(part, parts) for part in range(parts)]


def _read_part(path: Path) -> Latents:
    try:
        if kind_if_no_file(path):
            raise ValueError("it is not a file")
        tensors, _ = read_tensors(path)
        if lacking := [name for name in Latents._fields if name not in tensors]:
            raise ValueError(f"it has no {' and no '.join(lacking)}")
        latents = Latents(*(tensors[name] for name in Latents._fields))
        _check(latents)
    except (SafetensorError, struct.error, ValueError, FileNotFoundError) as error:  # a link may lead nowhere
        raise InputError(f"{path}: damaged ({error}); delete it and encode again") from error
    return latents


def _check(latents: Latents) -> None:
    """Raises ValueError where the tensors are not codes."""
    mean, std, index = latents
    if (mean.dtype, std.dtype, index.dtype) != (torch.float32, torch.float32, torch.int64):
        raise ValueError(f"mean, std and index are {mean.dtype}, {std.dtype}, {index.dtype}")
    if mean.ndim != 2 or mean.shape != std.shape or index.shape != mean.shape[:1]:
        raise ValueError(f"mean {tuple(mean.shape)}, std {tuple(std.shape)} and index {tuple(index.shape)} disagree")
    if (std < 0).any() or (index < 0).any():
        raise ValueError("some deviations or places of images are negative")
