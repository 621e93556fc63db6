"""Small folders of images, and shards of them."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_shards import Manifest, build_shards


def write_image(path: Path, number: int) -> None:
    """9 x 9 random pixels, others for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)


def build(source: Path, out: Path, **more) -> Manifest:
    """Shards of about ten images of 8 x 8 pixels."""
    return build_shards("folder", out, source=source, **{"size": 8, "shard_images": 10, **more})


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file but what the build keeps of its source: of all that a reader of shards may read."""
    paths = [path for path in folder.iterdir() if path.name not in (".build", "recipe.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
