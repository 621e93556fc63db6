"""Every kind of file against Pillow's own functions, value for value."""

import numpy as np
import pytest
from PIL import Image
from support.image_kinds import BACKGROUND, KINDS

from data_shards.decoding.decode import MADE_GREY, MADE_RGB, decode

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@each_kind
def test_a_file_becomes_what_is_seen(kind):
    decoded = decode(kind.data, channels=3, background=BACKGROUND)
    assert np.array_equal(decoded.image, kind.seen)


@each_kind
def test_what_was_decided_is_said(kind):
    assert set(decode(kind.data, channels=3, background=BACKGROUND).conversions) == kind.said


@each_kind
def test_grey_shards_hold_the_brightness_of_what_is_seen(kind):
    decoded = decode(kind.data, channels=1, background=BACKGROUND)
    grey = np.asarray(Image.fromarray(kind.seen).convert("L"))
    # libjpeg's own brightness, of which a plain JPEG is decoded, is not that of the rounded and clipped colours.
    slack = 0 if kind.data[:3] != b"\xff\xd8\xff" else 8
    assert decoded.image.shape == (*grey.shape, 1)
    assert np.abs(decoded.image[..., 0].astype(int) - grey).max() <= slack
    assert (MADE_GREY in decoded.conversions) == (MADE_RGB not in kind.said)
