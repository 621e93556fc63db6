"""A folder with a file of every kind: what the shards hold, and what the manifest says was decided."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.image_kinds import BACKGROUND, KINDS

from data_shards.build.request import build_shards
from data_shards.decoding.tiff import is_tiff
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream

SIZE = 24


def extension(data: bytes) -> str:
    if is_tiff(data):  # some of which Pillow does not open
        return "tiff"
    return Image.open(io.BytesIO(data)).format.lower().replace("jpeg2000", "jp2").replace("mpo", "jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("kinds")
    for number, kind in enumerate(KINDS):
        (place / f"{number:03d}.{extension(kind.data)}").write_bytes(kind.data)
    return place


@pytest.mark.parametrize("encoding", ["raw", "original"])
def test_every_kind_is_streamed_as_it_is_seen(folder, tmp_path, encoding):
    options = {"size": SIZE, "crop": "none", "background": BACKGROUND, "valid": 0, "test": 0, "encoding": encoding}
    manifest = build_shards("folder", tmp_path / "out", source=folder, **options)
    seen = {
        f"{number:03d}": ImageOps.pad(Image.fromarray(kind.seen), (SIZE, SIZE), Image.Resampling.BICUBIC, BACKGROUND)
        for number, kind in enumerate(KINDS)
    }
    (batch,) = ShardStream(tmp_path / "out", split="train", global_batch=len(KINDS), shuffle=False)
    shown = sorted(image.numpy().tobytes() for image in batch.image)
    assert shown == sorted(np.asarray(picture).transpose(2, 0, 1).tobytes() for picture in seen.values())
    said = Counter(what for kind in KINDS for what in kind.said)
    said[f"padded with {BACKGROUND}"] = len(KINDS)
    assert manifest.converted == dict(said)
    assert Manifest.load(tmp_path / "out").converted == dict(said)


def test_grey_shards_count_the_images_whose_colours_are_lost(folder, tmp_path):
    manifest = build_shards("folder", tmp_path / "out", source=folder, size=SIZE, channels=1, valid=0, test=0)
    assert manifest.converted["colours made grey"] + sum("grey stored as RGB" in kind.said for kind in KINDS) == len(
        KINDS
    )
