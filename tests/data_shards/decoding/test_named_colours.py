"""Colour spaces that files name without an ICC profile, against the published matrices and curves."""

import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.handmade_images import chunk, gamma, png, tiff
from support.icc_profiles import wide_rgb
from support.image_kinds import GREY, PHOTO, converted, saved

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.colour import GAMMA_APPLIED, HIGH_DYNAMIC_RANGE, NAMED_APPLIED
from data_shards.decoding.decode import decode
from data_shards.decoding.named_colours import NO_GAMMA, ODD_PRIMARIES, UNKNOWN
from data_shards.decoding.nclx import nclx

COLOURS, LEVELS = np.asarray(PHOTO), np.asarray(GREY)
# Light in the primaries to light in those of sRGB: CSS Color Module Level 4, section 18, and BT.2087, table 2.
FROM_DISPLAY_P3 = np.array([[1.22494, -0.22494, 0], [-0.042057, 1.042057, 0], [-0.0196376, -0.0786361, 1.0982736]])
FROM_BT2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
ADOBE = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)  # white, red, green, blue
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
A_LEVEL = 1.6  # LittleCMS computes with 8 bits in and out


def light(values: np.ndarray) -> np.ndarray:
    """The light of sRGB's values, 0 to 255."""
    share = values / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def srgb(shares: np.ndarray) -> np.ndarray:
    """sRGB's values, 0 to 255, of light."""
    share = np.clip(shares, 0, 1)
    return 255 * np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, matrix, full]))


def chrm(points: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(point * 100_000) for point in points)))


def avif(primaries: int, transfer: int) -> bytes:
    """An AVIF whose colours are numbered so; Pillow writes 1 and 13."""
    data = saved(PHOTO, "AVIF", quality=100, subsampling="4:4:4")
    assert data.count(b"colrnclx\0\1\0\r") == 1
    return data.replace(b"colrnclx\0\1\0\r", b"colrnclx" + struct.pack(">HH", primaries, transfer))


def seen(data: bytes, channels: int = 3) -> np.ndarray:
    return decode(data, channels=channels, background="#ffffff").image


def said(data: bytes) -> tuple[str, ...]:
    return decode(data, channels=3, background="#ffffff").conversions


@pytest.mark.parametrize(("primaries", "matrix"), [(12, FROM_DISPLAY_P3), (9, FROM_BT2020)], ids=["P3", "2020"])
@pytest.mark.parametrize("transfer", [13, 8], ids=["sRGB", "linear"])
def test_colours_that_a_png_numbers_are_converted(primaries, matrix, transfer):
    data = png(COLOURS, cicp(primaries, transfer))
    expected = srgb((light(COLOURS) if transfer == 13 else COLOURS / 255) @ matrix.T)
    assert np.abs(seen(data) - expected).max() < A_LEVEL
    assert said(data) == (NAMED_APPLIED,)


def test_colours_that_an_avif_numbers_are_converted():
    plain = np.asarray(Image.open(io.BytesIO(avif(1, 13))).convert("RGB"))
    assert np.array_equal(seen(avif(1, 13)), plain)
    assert said(avif(1, 13)) == ()
    assert np.abs(seen(avif(12, 13)) - srgb(light(plain) @ FROM_DISPLAY_P3.T)).max() < A_LEVEL
    assert said(avif(12, 13)) == (NAMED_APPLIED,)


def test_primaries_and_gamma_of_a_png_are_its_colour_space():
    data = png(COLOURS, gamma(1 / 2.5), chrm(ADOBE))
    adobe = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])  # Lindbloom: RGB to XYZ and back
    assert np.abs(seen(data) - srgb((COLOURS / 255) ** 2.5 @ adobe.T)).max() < A_LEVEL
    assert said(data) == (NAMED_APPLIED,)


@pytest.mark.parametrize("tag", [{0xA005: {1: "R03"}}, {0xA001: 2}], ids=["interoperability", "colour space"])
def test_a_camera_that_says_adobe_rgb_by_its_exif_is_believed(tag):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tag)
    data = saved(PHOTO, "JPEG", quality=95, exif=exif)
    plain = Image.open(io.BytesIO(data))
    assert np.abs(seen(data).astype(int) - converted(plain, wide_rgb())).max() <= 1
    assert said(data) == (NAMED_APPLIED,)


def test_the_primaries_of_a_tiff_are_its_colour_space():
    picture = Image.open(io.BytesIO(tiff(COLOURS, 2)))
    data = saved(picture, "TIFF", tiffinfo={319: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06), 318: (0.3127, 0.329)})
    assert np.abs(seen(data) - srgb(light(COLOURS) @ FROM_DISPLAY_P3.T)).max() < A_LEVEL
    assert said(data) == (NAMED_APPLIED,)


@pytest.mark.parametrize(
    ("chunks", "what"),
    [
        ((cicp(1, 13),), ()),
        ((cicp(2, 2),), ()),
        ((cicp(1, 1), gamma(1.0)), ()),
        ((gamma(1.0), chrm(ADOBE), chunk(b"sRGB", b"\0")), ()),
        ((gamma(0.45455), chrm(SRGB)), ()),
        ((gamma(1.0), chrm(SRGB)), (GAMMA_APPLIED,)),
        ((chrm(ADOBE),), (NO_GAMMA,)),
        ((gamma(0.45455), chrm((0.0,) * 8)), (ODD_PRIMARIES,)),
        ((gamma(0.45455), chrm((0.9, 0.9, *ADOBE[2:]))), (ODD_PRIMARIES,)),
        ((cicp(12, 13, matrix=9),), (UNKNOWN,)),
        ((cicp(12, 13, full=0),), (UNKNOWN,)),
        ((cicp(200, 13),), (UNKNOWN,)),
        ((cicp(1, 200),), (UNKNOWN,)),
    ],
)
def test_what_changes_nothing_and_what_cannot_be_followed(chunks, what):
    assert said(png(COLOURS, *chunks)) == what
    if GAMMA_APPLIED not in what:
        assert np.array_equal(seen(png(COLOURS, *chunks)), COLOURS)


@pytest.mark.parametrize(
    ("transfer", "values"),
    # PQ's value of 203, 100 and 1,000 nits, HLG's of 203 (BT.2408, table 1), and black.
    [(16, {148: 255, 130: 187.5, 192: 255, 0: 0}), (18, {191: 255, 255: 255, 0: 0})],
    ids=["PQ", "HLG"],
)
def test_high_dynamic_range_is_cut_off_at_the_white_of_paper(transfer, values):
    picture = np.repeat(np.array([list(values)], np.uint8)[..., None], 3, 2)
    data = png(picture, cicp(9, transfer))
    assert np.abs(seen(data)[0, :, 0] - np.array(list(values.values()))).max() <= 3
    assert said(data) == (NAMED_APPLIED, HIGH_DYNAMIC_RANGE)


def test_alpha_and_grey_stay_what_they_are():
    opaque = np.full((*LEVELS.shape, 1), 255, np.uint8)
    veiled = png(np.concatenate([COLOURS, opaque], 2), cicp(12, 13))
    assert np.array_equal(seen(veiled), seen(png(COLOURS, cicp(12, 13))))
    linear = png(LEVELS[..., None], cicp(12, 8))
    assert np.abs(seen(linear, 1)[..., 0] - srgb(LEVELS / 255)).max() < A_LEVEL


def test_a_profile_comes_before_what_else_is_named():
    data = saved(PHOTO, "PNG", icc_profile=wide_rgb())
    place = data.index(b"IDAT") - 4
    assert np.array_equal(seen(data[:place] + cicp(9, 8) + data[place:]), seen(data))


def test_boxes_of_any_content_name_nothing_or_something():
    data, rng = avif(12, 16), np.random.default_rng(0)
    assert nclx(data) == (12, 16)
    for _ in range(2000):
        content = bytearray(data[: rng.integers(1, 500)])
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        found = nclx(bytes(content))
        assert found is None or len(found) == 2


@pytest.mark.parametrize("number", range(3))
def test_damaged_descriptions_are_ignored_or_unreadable(number):
    data = (png(COLOURS, cicp(12, 13)), png(COLOURS, gamma(0.4), chrm(ADOBE)), avif(12, 13))[number]
    rng = np.random.default_rng(number)
    for _ in range(200):
        content = bytearray(data)
        for place in rng.integers(0, 300, 3):
            content[place] = rng.integers(256)
        with contextlib.suppress(BadImage):
            assert seen(bytes(content)).dtype == np.uint8
