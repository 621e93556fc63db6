"""Batched resizing against clean-fid's own, image by image and channel by channel."""

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer, make_resizer

from eval.distance.extractors.extractor import resize_bilinear, resize_clean

# 2e-6 of the range of pixel values, a few roundings of float32.
TOLERANCE = 5e-4


def images(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(28, 28, 64), (28, 28, 299), (64, 64, 299), (300, 420, 64), (64, 64, 64), (33, 50, 41)],
)
def test_a_batch_is_resized_as_clean_fid_resizes_each_image(height, width, size):
    batch = images(height, width)
    one_by_one = make_resizer("PIL", False, "bicubic", (size, size))
    expected = np.stack([one_by_one(image) for image in batch]).transpose(0, 3, 1, 2)
    got = resize_clean(torch.from_numpy(batch).permute(0, 3, 1, 2).float(), size)
    np.testing.assert_allclose(got.numpy(), expected, atol=TOLERANCE, rtol=0)


def test_values_beyond_the_range_are_clipped_as_clean_fid_does():
    # A sharp edge makes a cubic filter overshoot on both sides.
    batch = np.zeros((1, 20, 20, 3), np.uint8)
    batch[:, :, 10:] = 255
    got = resize_clean(torch.from_numpy(batch).permute(0, 3, 1, 2).float(), 64)
    expected = build_resizer("clean")(batch[0])
    assert got.min() == 0
    assert got.max() == 255
    assert expected.min() == 0
    assert expected.max() == 255


def test_the_bilinear_mode_is_clean_fids():
    batch = images(40, 40)
    one_by_one = build_resizer("legacy_pytorch")
    expected = np.stack([one_by_one(image) for image in batch]).transpose(0, 3, 1, 2)
    got = resize_bilinear(torch.from_numpy(batch).permute(0, 3, 1, 2).float(), 299)
    np.testing.assert_allclose(got.numpy(), expected, atol=TOLERANCE, rtol=0)
