"""The class of each image is read from shards in both ways in which they keep it."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data_shards import InputError, Location, build_shards
from data_shards.stream.labels import labels_of


def test_classes_that_lie_beside_the_images_in_the_tar_are_those_of_the_source(digits_shards):
    assert labels_of(Location(address=str(digits_shards)), "test") == tuple(
        str(digit) for digit in load_digits().target[1597:]
    )


def write_images(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(path)


def test_folders_of_a_split_are_classes_and_a_flat_folder_has_none(tmp_path):
    names = [
        f"{split}/{name}/{i}.png" for split in ("train", "valid", "test") for name in ("cat", "dog") for i in (0, 1)
    ]
    write_images(tmp_path / "classes", names)
    build_shards("folder", tmp_path / "shards", source=tmp_path / "classes", size=8)
    assert labels_of(Location(address=str(tmp_path / "shards")), "test") == ("cat", "cat", "dog", "dog")
    write_images(tmp_path / "flat", [name.replace("cat/", "c").replace("dog/", "d") for name in names])
    build_shards("folder", tmp_path / "flat-shards", source=tmp_path / "flat", size=8)
    assert labels_of(Location(address=str(tmp_path / "flat-shards")), "test") is None


def test_a_split_that_does_not_exist_is_refused(digits_shards):
    with pytest.raises(InputError, match="'tset' is not in the shards; use one of train, valid, test"):
        labels_of(Location(address=str(digits_shards)), "tset")
