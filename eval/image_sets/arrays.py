"""An array of images in numpy's formats: the .npz of other programs' samples, or an .npy file."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from data_shards.io.errors import InputError, raise_machine_fault
from eval.image_sets.image_set import ImageSet, chosen
from eval.images.blocks import block_ids

_NUMPY = (b"PK", b"\x93NUMPY")
_RIGHT = "use uint8 in 0 to 255, (N, H, W, 3), (N, H, W, 1) or (N, H, W)"


def array_of(word: str) -> tuple[Path, str] | None:
    """The file and the array's name of FILE.npy, FILE.npz or FILE.npz:NAME; None where there is no such file."""
    file, separator, array = word.rpartition(".npz:")
    path = Path(f"{file}.npz" if separator else word)
    return (path, array if separator else "") if path.suffix in (".npz", ".npy") and path.is_file() else None


def image_array(path: Path, array: str, *, name: str, n: int | None, seed: int) -> ImageSet:
    """n images of an array, by a seeded choice; all where n is None. Raises InputError where there is none.

    array: its name in an .npz file; empty where it is the only array of images.
    """
    pixels = _pixels(path, array)
    rows = chosen(n, len(pixels), seed, name)
    pixels = pixels if len(rows) == len(pixels) else pixels[rows]

    def images(blocks: range) -> Iterator[tuple[Tensor, Tensor]]:
        for block in blocks:
            ids = block_ids(block, len(pixels))
            part = np.array(pixels[int(ids[0]) : int(ids[-1]) + 1])
            yield ids, torch.from_numpy(part).permute(0, 3, 1, 2)

    return ImageSet(
        name=name,
        n=len(pixels),
        images=images,
        identity={
            "kind": "array",
            "shape": list(pixels.shape),
            "content": xxhash.xxh3_128_hexdigest(np.ascontiguousarray(pixels).data),
        },
    )


def member_names(path: Path) -> set[str]:
    """The names of the arrays in an .npz file, which are not read. Raises InputError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def members(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays in an .npz file, by name; none are of Python objects. Raises InputError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    raise_machine_fault(error, path)
    objects = any(words in str(error) for words in ("allow_pickle", "Python objects"))
    if objects and path.read_bytes()[:6].startswith(_NUMPY):  # else numpy takes it for a pickle
        return InputError(f"{path}: holds Python objects, which are never loaded; {_RIGHT}")
    return InputError(f"{path}: not an array file, or cut short ({error}); get the file again")


def _pixels(path: Path, name: str) -> NDArray[np.uint8]:
    """(N, H, W, C)."""
    if path.suffix == ".npy":
        try:
            found = {path.name: np.load(path, mmap_mode="r", allow_pickle=False)}
        except (ValueError, OSError, EOFError) as error:
            raise _unreadable(path, error) from error
    else:
        found = members(path)
    if name not in ("", *found):
        raise InputError(f"{path}: has no array {name!r}; choose one of {_named(found)}")
    # Samples of other programs come with class labels, one number an image.
    candidates = {key: array for key, array in found.items() if array.ndim >= 3 and name in ("", key)}
    if len(candidates) != 1:
        chosen_by_name = f"choose one as {path}:NAME" if len(candidates) > 1 else "it must have one"
        raise InputError(f"{path}: has {len(candidates)} arrays of images ({_named(found)}); {chosen_by_name}")
    (array,) = candidates.values()
    if array.dtype != np.uint8 or array.ndim > 4 or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise InputError(f"{path}: its array is {array.dtype} {array.shape}; {_RIGHT}")
    if array.ndim == 3 and array.shape[2] in (1, 3):
        raise InputError(
            f"{path}: its array is {array.shape}: one image, or {array.shape[0]} grey ones that are {array.shape[2]} "
            "pixels wide? Give (N, H, W, C)"
        )
    if not array.size:
        raise InputError(f"{path}: its array is empty; {_RIGHT}")
    return array if array.ndim == 4 else array[..., None]


def _named(arrays: dict[str, NDArray[np.generic]]) -> str:
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()) or "nothing"
