"""What is read of WebDataset tars, and what is not."""

import subprocess

import numpy as np
import pytest
from PIL import Image
from support.picture_folders import pictures, write_pictures

from data_shards.io.errors import InputError
from eval.image_sets.tars import tar_images


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_images_that_a_tar_stores_with_holes_are_left_out_and_counted(tmp_path, kind):
    folder = write_pictures(tmp_path / "images", pictures(2, 0))
    black = tmp_path / "black.bmp"
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(black)
    content = black.read_bytes()
    with (folder / "black.bmp").open("wb") as file:
        file.write(content[:4096])
        file.truncate(len(content))
    words = ["tar", "--sparse", "--hole-detection=raw", f"--format={kind}", "-C", str(folder), "-cf"]
    subprocess.run([*words, str(tmp_path / "a.tar"), "000.png", "001.png", "black.bmp"], check=True)
    found = tar_images(str(tmp_path / "a.tar"), n=None, seed=0)
    assert found.n == 2
    assert [note.partition("left out: ")[2] for note in found.notes] == [
        "1 members stored with holes, which are not read: pack the tar without --sparse"
    ]


def test_a_range_of_more_tars_than_anyone_has_is_refused_rather_than_listed():
    with pytest.raises(InputError, match="names more than 1,000,000 tars; give a smaller range"):
        tar_images("data-{0..9}-{000000..999999}.tar", n=None, seed=0)
