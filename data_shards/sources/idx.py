"""MNIST's idx files: the training file split into train and valid, the t10k file as test."""

import functools
import gzip
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards.io.errors import InputError
from data_shards.sources.source import Dataset, Sample, fingerprint_of_keys

_KINDS = {"images": 3, "labels": 1}  # kind of file: dimensions of its array


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, plain or .gz.

    The format: two zero bytes, type 8 (unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
    integer, the data. Raises InputError where the file is anything else.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); get the file again") from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) < start:
        raise InputError(
            f"{path}: not an idx file of unsigned bytes in {dimensions} dimensions; give MNIST's own files"
        )
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4)
    if len(data) - start != int(shape.prod(dtype=np.uint64)):
        raise InputError(f"{path}: {len(data) - start} bytes of data, not {'x'.join(map(str, shape))}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class IdxSource:
    """The four idx files in `folder`; the last `num_valid` training images become the split valid.

    Raises InputError where a file is missing or damaged or images and labels differ in number.
    """

    def __init__(self, folder: Path, *, name: str, num_valid: int) -> None:
        self.name = name
        self._paths = {(part, kind): _find(folder, part, kind) for part in ("train", "t10k") for kind in _KINDS}
        num_train = len(self._array("train", "images"))
        num_test = len(self._array("t10k", "images"))
        for part, count in (("train", num_train), ("t10k", num_test)):
            if (labels := len(self._array(part, "labels"))) != count:
                raise InputError(
                    f"{self._paths[part, 'labels']}: {labels} labels for {count} images; get the files again"
                )
        if not 0 <= num_valid < num_train:
            raise InputError(
                f"{num_valid} does not leave a training image of {num_train}; use less", parameter="num_valid"
            )
        self._train_of_valid = num_train - num_valid
        names = [f"train-{index:05d}" for index in range(num_train)]
        keys = {"train": names[: self._train_of_valid], "valid": names[self._train_of_valid :]}
        keys["test"] = [f"test-{index:05d}" for index in range(num_test)]
        self.keys: Mapping[str, Sequence[str]] = {split: names for split, names in keys.items() if names}

    def _array(self, part: str, kind: str) -> NDArray[np.uint8]:
        return _cached_idx(self._paths[part, kind], _KINDS[kind])

    def read(self, split: str, index: int) -> Sample:
        """The image as H x W x 1 with its class as text."""
        part = "t10k" if split == "test" else "train"
        row = index + (self._train_of_valid if split == "valid" else 0)
        label = int(self._array(part, "labels")[row])
        return Sample(image=self._array(part, "images")[row, :, :, None], extras={"cls": str(label).encode()})

    def fingerprint(self) -> str:
        """Of keys and pixels."""
        digest = hashlib.sha256(fingerprint_of_keys(self.keys).encode())
        for part in ("train", "t10k"):
            digest.update(self._array(part, "images").tobytes())
        return digest.hexdigest()


def idx_dataset(name: str, *, find: Callable[[], Path] | None = None) -> Dataset:
    """A data set of MNIST's form: 28 x 28 grey pixels, the last 5000 training images held out."""
    return Dataset(
        name=name,
        open=lambda folder, num_valid: IdxSource(folder, name=name, num_valid=num_valid),
        files="folder of the four idx files" + (", which are found or downloaded without it" if find else ""),
        find=find,
        channels=1,
        size=28,
        resize=False,
        num_valid=5000,
        encoded=False,
    )


MNIST = idx_dataset("mnist")


@functools.lru_cache(maxsize=4)
def _cached_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    return read_idx(path, dimensions=dimensions)


def _find(folder: Path, part: str, kind: str) -> Path:
    name = f"{part}-{kind}-idx{_KINDS[kind]}-ubyte"
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise InputError(f"{folder}: no {name}.gz there; give the folder of the four idx files", parameter="source")
