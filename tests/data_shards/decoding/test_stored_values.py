"""Values that Pillow gives as they are stored: their type, their white, their depth and their gamma."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.handmade_images import chunk, gamma, png, tiff
from support.image_kinds import GREY, PHOTO, saved

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.colour import GAMMA_APPLIED
from data_shards.decoding.decode import UNUSED_ALPHA, decode
from data_shards.decoding.stored import NARROWED

COLOURS, LEVELS = np.asarray(PHOTO), np.asarray(GREY)
OWN_RANGE = (LEVELS - float(LEVELS.min())) / (float(LEVELS.max()) - LEVELS.min()) * 255


def seen(data: bytes) -> np.ndarray:
    return decode(data, channels=3, background="#ffffff").image


def grey(data: bytes) -> np.ndarray:
    return decode(data, channels=1, background="#ffffff").image[..., 0]


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_tiff_that_counts_from_white_is_not_a_negative(kind):
    values = LEVELS.astype(kind) * (257 if kind == np.uint16 else 1)
    assert np.array_equal(grey(tiff(values.max() - values, 0)), 255 - grey(tiff(values.max() - values, 1)))


def test_signed_bytes_are_not_taken_for_unsigned_ones():
    assert np.array_equal(grey(tiff((LEVELS.astype(int) - 128).astype(np.int8), 1)), np.rint(OWN_RANGE))


def test_32_unsigned_bits_do_not_become_negative():
    assert np.array_equal(grey(tiff(LEVELS.astype(np.uint32) * 0x01010101, 1)), np.rint(OWN_RANGE))


@pytest.mark.parametrize(
    "data", [png(COLOURS.astype(np.uint16) * 257), tiff(COLOURS.astype(np.uint16) * 257, 2)], ids=["PNG", "TIFF"]
)
def test_colours_of_16_bits_are_their_upper_half_and_it_is_said(data):
    decoded = decode(data, channels=3, background="#ffffff")
    assert np.array_equal(decoded.image, COLOURS)
    assert decoded.conversions == (NARROWED,)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_colours_of_12_bits_in_16_are_not_black(form, orientation):
    values = COLOURS.astype(np.uint16) * 16
    low, high = float(values.min()), float(values.max())
    expected = np.rint((values - low) / (high - low) * 255)
    if form == "TIFF":
        data = tiff(values, 2, orientation)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = png(values, chunk(b"eXIf", exif.tobytes()[6:]))
    assert np.array_equal(seen(data), np.rot90(expected, -1) if orientation == 6 else expected)


def test_alpha_beside_12_bits_in_16_stays_as_it_is():
    values, opaque = COLOURS.astype(np.uint16) * 16, np.full((*COLOURS.shape[:2], 1), 65535, np.uint16)
    assert np.array_equal(seen(png(np.concatenate([values, opaque], 2))), seen(png(values)))
    veiled = LEVELS[..., None].astype(np.uint16) * 16
    assert np.array_equal(grey(png(np.concatenate([veiled, opaque], 2))), np.rint(OWN_RANGE))


@pytest.mark.parametrize("value", [1.0, 0.2])
def test_the_gamma_of_a_png_is_applied(value):
    decoded = decode(png(COLOURS, gamma(value)), channels=3, background="#ffffff")
    assert np.array_equal(decoded.image, np.rint(255 * (COLOURS / 255) ** (1 / (2.2 * value))))
    assert decoded.conversions == (GAMMA_APPLIED,)


@pytest.mark.parametrize(
    "chunks",
    [(gamma(0.45455),), (gamma(1.0), chunk(b"sRGB", b"\0")), (gamma(0.0),), (gamma(20_000.0),)],
    ids=["a screen's", "sRGB all the same", "none", "absurd"],
)
def test_no_other_gamma_changes_a_png(chunks):
    decoded = decode(png(COLOURS, *chunks), channels=3, background="#ffffff")
    assert np.array_equal(decoded.image, COLOURS)
    assert decoded.conversions == ()


def bmp(alpha: int) -> bytes:
    """A BMP of version 4 whose header has a mask for alpha."""
    height, width = LEVELS.shape
    rows = np.concatenate([COLOURS[::-1, :, ::-1], np.full((height, width, 1), alpha, np.uint8)], 2).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(rows), 0, 0, 0, 0) + masks
    header = header.ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(rows), 0, 0, 14 + 108) + header + rows


def test_an_alpha_that_was_never_written_hides_nothing():
    empty = PHOTO.copy()
    empty.putalpha(0)
    for data in (bmp(0), saved(empty, "TGA"), saved(empty, "DDS")):
        decoded = decode(data, channels=3, background="#ffffff")
        assert np.array_equal(decoded.image, COLOURS)
        assert decoded.conversions == (UNUSED_ALPHA,)
    half = decode(bmp(128), channels=3, background="#ffffff")
    assert np.abs(half.image - (COLOURS * (128 / 255) + 127)).max() <= 1.5
    assert (seen(saved(empty, "PNG")) == 255).all()  # where alpha is always meant, it hides everything


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "TGA", "PPM", "AVIF", "JPEG2000", "ICO"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_was_cut_off_is_not_taken_for_an_image(form, share):
    data = saved(PHOTO.resize((64, 64)), form)
    Image.open(io.BytesIO(data)).load()
    with pytest.raises(BadImage):
        decode(data[: int(len(data) * share)], channels=3, background="#ffffff")
