"""Folders of small pictures for tests that compare sets of images."""

import numpy as np
from PIL import Image


def pictures(n, seed, *, top=256, side=(32, 40)):
    """n colour images, uint8 (H, W, 3); neighbouring pixels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        small = rng.integers(0, top, (8, 10, 3), dtype=np.uint8)
        yield np.asarray(Image.fromarray(small).resize(side[::-1]))


def write_pictures(folder, images, *, extension="png"):
    """Writes images as FOLDER/000.EXTENSION and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.{extension}")
    return folder
