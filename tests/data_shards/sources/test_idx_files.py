"""MNIST's files as other programs leave them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from support.running import write_digits

from data_shards.io.errors import InputError
from data_shards.sources.idx import DEBIAN_FOLDER, IdxSource, _find, read_idx
from data_shards.sources.portion import Portion

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_a_file_that_was_unpacked_under_its_packed_name_is_read(digits, tmp_path):
    path = digits / f"{IMAGES}.gz"
    (tmp_path / path.name).write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(read_idx(tmp_path / path.name, dimensions=3), read_idx(path, dimensions=3))


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_is_packed_under_its_plain_name_is_read(digits, tmp_path, times):
    path = digits / f"{IMAGES}.gz"
    data = path.read_bytes()
    (tmp_path / IMAGES).write_bytes(gzip.compress(data) if times == 2 else data)
    assert np.array_equal(read_idx(tmp_path / IMAGES, dimensions=3), read_idx(path, dimensions=3))


@pytest.mark.parametrize(
    "name",
    [
        f"{IMAGES}.gz",
        IMAGES,
        "train-images.idx3-ubyte",
        f"{IMAGES}/{IMAGES}",
        "train-images-idx3-ubyte/train-images.idx3-ubyte",
        f"MNIST/raw/{IMAGES}",
    ],
)
def test_the_files_are_found_under_the_names_that_they_have_elsewhere(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    assert _find(tmp_path, "train", "images") == tmp_path / name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty, not an idx file"),
        (b"<html>not found</html>", "a web page, not an idx file"),
        (b"\0\0\x0d\3" + bytes(100), "an idx file of floats in 3 dimensions, not an idx file of unsigned bytes in 3"),
        (b"\0\0\x08\1" + bytes(100), "an idx file of unsigned bytes in 1 dimensions, not"),
        (b"\0\0\x08\3\x80\0\0\0\x80\0\0\0\0\0\0\4", "0 bytes of data, not 2147483648x2147483648x4"),  # 2^64
        (b"\x89PNG\r\n\x1a\n", "of another format, not an idx file"),
    ],
)
def test_what_another_file_is_instead_is_said(tmp_path, data, message):
    (tmp_path / IMAGES).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / IMAGES, dimensions=3)


def test_images_of_another_data_set_than_the_name_says_are_told(digits):
    said = IdxSource(digits, name="fashion-mnist", valid=Portion(images=0)).notes()
    assert len(said) == 1
    assert "does not hold the images of fashion-mnist's authors" in said[0]
    assert IdxSource(digits, name="mnist", valid=Portion(images=0)).notes() == []


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_told_from_mnist_by_its_content():
    assert IdxSource(DEBIAN_FOLDER, name="fashion-mnist", valid=Portion(images=0)).notes() == []
    (said,) = IdxSource(DEBIAN_FOLDER, name="mnist", valid=Portion(images=0)).notes()
    assert "holds the images of fashion-mnist, though it is built as mnist" in said
