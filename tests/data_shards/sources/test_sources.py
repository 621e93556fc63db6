"""idx files, image folders, and where Fashion-MNIST is found."""

import gzip
import os
import re

import numpy as np
import pytest
from PIL import Image

from data_shards.build.builder import BuildOptions, build
from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError
from data_shards.pixels import Pixels
from data_shards.sources import idx as idx_source
from data_shards.sources.folder import FolderSource
from data_shards.sources.idx import IdxSource, read_idx
from data_shards.sources.portion import HeldOutPortions, Portion
from data_shards.stream.stream import ShardStream


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """50 training and 10 test images of 28 x 28."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, count in (("train", 50), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_the_last_training_images_become_the_split_valid(idx_folder, tmp_path):
    build(
        IdxSource(idx_folder, name="mnist", valid=Portion(images=8)),
        Pixels(channels=1, height=28, width=28),
        tmp_path,
        BuildOptions(),
    )
    train = read_idx(idx_folder / "train-images-idx3-ubyte.gz", dimensions=3)
    test = read_idx(idx_folder / "t10k-images-idx3-ubyte.gz", dimensions=3)
    for split, images in (("train", train[:42]), ("valid", train[42:]), ("test", test)):
        (batch,) = ShardStream(tmp_path, split=split, global_batch=100, shuffle=False)
        assert np.array_equal(batch.image[:, 0].numpy(), images)


def test_a_label_is_a_member_of_its_own(idx_folder):
    source = IdxSource(idx_folder, name="mnist", valid=Portion(images=8))
    labels = read_idx(idx_folder / "train-labels-idx1-ubyte", dimensions=1)
    assert source.read("valid", 3).extras == {"cls": str(labels[45]).encode()}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(np.zeros((2, 3, 3), np.uint8))[:-1], "17 bytes of data, not 2x3x3"),
        (b"\x00\x00\x0d\x03" + bytes(20), "not an idx file of unsigned bytes"),
        (b"", "not an idx file"),
    ],
)
def test_a_damaged_idx_file_is_reported(tmp_path, data, message):
    (tmp_path / "images").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / "images", dimensions=3)


def test_a_truncated_gz_file_is_reported(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: damaged"):
        IdxSource(idx_folder, name="mnist", valid=Portion(images=8))


def test_labels_that_do_not_match_the_images_are_reported(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(9, np.uint8)))
    with pytest.raises(InputError, match="9 labels for 10 images"):
        IdxSource(idx_folder, name="mnist", valid=Portion(images=8))


def test_a_missing_idx_file_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"no train-images-idx3-ubyte\.gz there"):
        IdxSource(tmp_path, name="mnist", valid=Portion(images=8))


def test_more_valid_images_than_there_are_is_reported(idx_folder):
    with pytest.raises(InputError, match="valid: 50 does not leave a training image of 50"):
        IdxSource(idx_folder, name="mnist", valid=Portion(images=50))


@pytest.fixture
def pictures(tmp_path):
    """Five pictures of several kinds and sizes in two folders, with names that WebDataset cannot use as keys."""
    folder = tmp_path / "pictures"
    for number, name in enumerate(["b/a.1.png", "b/a_1.bmp", "a/x y.jpg", "a/z.webp", "a/Z.PNG"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 30), (number * 50, 0, 0)).save(path)
    (folder / "notes.txt").write_text("no picture")
    return folder


def held_out(valid: int) -> HeldOutPortions:
    return HeldOutPortions(valid=Portion(images=valid), test=Portion(images=0))


def test_any_folder_of_images_is_read_in_the_order_of_paths(pictures):
    source = FolderSource(pictures, held_out(0))
    keys = [re.sub("-[0-9a-f]{16}$", "-HASH", key) for key in source.keys["train"]]
    assert keys == ["a/Z", "a/x_y-HASH", "a/z", "b/a_1-HASH", "b/a_1-HASH"]


def test_some_images_of_a_folder_can_become_valid(pictures):
    source = FolderSource(pictures, held_out(2))
    assert {split: len(keys) for split, keys in source.keys.items()} == {"train": 3, "valid": 2}


def test_folders_named_after_splits_are_the_splits(pictures):
    (pictures / "a").rename(pictures / "train")
    (pictures / "b").rename(pictures / "test")
    source = FolderSource(pictures, HeldOutPortions(valid=Portion(images=0)))
    assert {split: len(keys) for split, keys in source.keys.items()} == {"train": 3, "test": 2}


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_kind_and_size_become_one_size(pictures, tmp_path, channels):
    pixels = Pixels(channels=channels, height=16, width=16, resize=True)
    build(FolderSource(pictures, held_out(0)), pixels, tmp_path / "out", BuildOptions(shard_images=2))
    (batch,) = ShardStream(tmp_path / "out", split="train", global_batch=9, shuffle=False)
    assert batch.image.shape == (5, channels, 16, 16)


def test_a_pipe_that_took_the_place_of_an_image_is_unusable_and_not_waited_for(pictures):
    source = FolderSource(pictures, held_out(0))
    image = next(path for path in pictures.rglob("*") if path.stem == "Z")
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(BadImage, match="a pipe or a device"):
        source.read("train", 0)


def test_a_folder_without_images_is_reported(tmp_path):
    with pytest.raises(InputError, match="no images"):
        FolderSource(tmp_path, held_out(0))


def test_fashion_mnist_is_taken_from_the_cache_before_it_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path))
    monkeypatch.setattr(idx_source, "DEBIAN_FOLDER", tmp_path / "no-package")
    kept = tmp_path / "fashion-mnist"
    kept.mkdir()
    for name in idx_source.FILES:
        (kept / name).write_bytes(b"")
    assert idx_source.find_fashion_mnist() == kept


def test_without_network_and_package_the_three_ways_are_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path))
    monkeypatch.setattr(idx_source, "DEBIAN_FOLDER", tmp_path / "no-package")
    monkeypatch.setattr(idx_source, "OFFICIAL", "https://127.0.0.1:9/")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        InputError, match=r"Give their folder, or `apt-get install dataset-fashion-mnist`, or open the network"
    ):
        idx_source.find_fashion_mnist()
    assert [path.name for path in tmp_path.rglob("*")] == ["fashion-mnist"]


@pytest.mark.skipif(not idx_source.DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_files_are_fashion_mnist():
    source = IdxSource(idx_source.DEBIAN_FOLDER, name="fashion-mnist", valid=Portion(images=0))
    images = np.stack([source.read("train", index).image for index in range(60_000)]) / 255
    # Mean and deviation as published with the data set and used for normalising it ever since.
    assert (images.mean(), images.std()) == pytest.approx((0.2860, 0.3530), abs=5e-5)
