"""A small data set in the form in which CelebA's authors distribute theirs."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CELEBA_SPLITS = {"train": 240, "valid": 30, "test": 30}
ATTRIBUTE_NAMES = [f"Attribute_{number}" for number in range(40)]


def jpeg_of_celeba_size(number: int) -> bytes:
    """178 x 218 pixels, 3 channels, smooth, different for each number."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((178, 218), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_celeba(folder: Path) -> Path:
    """300 images with partition and attribute files in the original's form."""
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, sum(CELEBA_SPLITS.values()) + 1)]
    splits = [number for number, count in enumerate(CELEBA_SPLITS.values()) for _ in range(count)]
    rng = np.random.default_rng(7)
    rows = rng.choice(["-1", " 1"], (len(names), 40))
    for number, name in enumerate(names):
        (images / name).write_bytes(jpeg_of_celeba_size(number))
    (folder / "list_eval_partition.txt").write_text(
        "".join(f"{name} {split}\n" for name, split in zip(names, splits, strict=True))
    )
    lines = [f"{name} {' '.join(row)}" for name, row in zip(names, rows, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(ATTRIBUTE_NAMES), *lines]) + "\n")
    return folder
