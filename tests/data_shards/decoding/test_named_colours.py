"""Colour spaces that files name without an ICC profile, against the published matrices and curves."""

import contextlib
import io
import struct

import av
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from support.handmade_images import chunk, gamma, png, tiff
from support.icc_profiles import wide_rgb
from support.image_kinds import GREY, PHOTO, converted, saved

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.colour import (
    GAMMA_APPLIED,
    HIGH_DYNAMIC_RANGE,
    NAMED_APPLIED,
    PROFILE_APPLIED,
    PROFILE_UNREADABLE,
)
from data_shards.decoding.decode import decode
from data_shards.decoding.named_colours import BMP_UNKNOWN, NO_GAMMA, ODD_PRIMARIES, TIFF_CURVE_UNKNOWN, UNKNOWN
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


def avif_stream(primaries: int, transfer: int) -> bytes:
    """An AVIF of FFmpeg and SVT-AV1, in which only the stream numbers the colours."""
    with contextlib.closing(io.BytesIO()) as file:
        with av.open(file, "w", format="avif") as container:
            stream = container.add_stream("libsvtav1", rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, 1
            frame = av.VideoFrame.from_ndarray(np.asarray(PHOTO.resize((64, 64))), format="rgb24")
            for packet in (*stream.encode(frame), *stream.encode()):
                container.mux(packet)
        data = file.getvalue()
    assert data.count(b"colrnclx") == 1
    return data.replace(b"colrnclx", b"freenclx")


def bmp(
    kind: int, points: tuple[float, ...] = (0.0,) * 9, gammas: tuple[float, ...] = (0.0,) * 3, profile: bytes = b""
):
    """A BMP of version 5 of COLOURS."""
    height, width, _ = COLOURS.shape
    rows = b"".join(row[:, ::-1].tobytes().ljust((3 * width + 3) // 4 * 4, b"\0") for row in COLOURS[::-1])
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0) + bytes(16)
    header += struct.pack("<I", kind) + struct.pack("<9i", *(round(x * 2**30) for x in points))
    header += struct.pack("<3I", *(round(gamma * 65536) for gamma in gammas))
    header += struct.pack("<IIII", 4, 124 + len(rows) if profile else 0, len(profile), 0)
    assert len(header) == 124
    return b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(profile), 0, 0, 138) + header + rows + profile


def with_curve(tables: list[np.ndarray], **more: object) -> bytes:
    """A TIFF of COLOURS with TransferFunction."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[301], info.tagtype[301] = tuple(np.concatenate(tables).round().astype(int).tolist()), 3
    for tag, value in more.items():
        info[int(tag.removeprefix("tag"))] = value
    return saved(Image.fromarray(COLOURS), "TIFF", tiffinfo=info)


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


@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (1, 8)])
def test_colours_that_only_the_stream_of_an_avif_numbers_are_converted(primaries, transfer):
    data = avif_stream(primaries, transfer)
    assert nclx(data) == (primaries, transfer)
    assert np.array_equal(seen(data), seen(data.replace(b"freenclx", b"colrnclx")))
    assert NAMED_APPLIED in said(data)
    assert said(avif(1, 13).replace(b"colrnclx", b"freenclx")) == ()


def test_the_profile_in_a_bmp_is_applied():
    data = bmp(0x4D424544, profile=wide_rgb())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), COLOURS)
    assert np.abs(seen(data).astype(int) - converted(Image.fromarray(COLOURS), wide_rgb())).max() <= 1
    assert said(data) == (PROFILE_APPLIED,)
    assert said(bmp(0x4D424544, profile=b"none")) == (PROFILE_UNREADABLE,)


ADOBE_XYZ = (0.5767, 0.2973, 0.027, 0.1856, 0.6274, 0.0707, 0.1882, 0.0753, 0.9911)
SRGB_XYZ = (0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)  # IEC 61966-2-1


@pytest.mark.parametrize(
    ("kind", "points", "gammas", "what"),
    [
        (0x73524742, ADOBE_XYZ, (1.0,) * 3, ()),
        (0x57696E20, ADOBE_XYZ, (1.0,) * 3, ()),
        (0, (0.0,) * 9, (0.0,) * 3, ()),
        (0, SRGB_XYZ, (2.2,) * 3, ()),
        (0, (0.64, 0.33, 0.03, 0.3, 0.6, 0.1, 0.15, 0.06, 0.79), (1 / 2.2,) * 3, ()),
        (0, ADOBE_XYZ, (2.2,) * 3, (BMP_UNKNOWN,)),
        (0, SRGB_XYZ, (1.0,) * 3, (BMP_UNKNOWN,)),
        (0x4C494E4B, (0.0,) * 9, (0.0,) * 3, (BMP_UNKNOWN,)),
    ],
)
def test_a_bmp_with_colours_that_are_not_a_screens_is_said(kind, points, gammas, what):
    assert said(bmp(kind, points, gammas)) == what
    assert np.array_equal(seen(bmp(kind, points, gammas)), COLOURS)


def test_the_curve_of_a_tiff_is_its_brightness():
    linear = np.linspace(0, 65535, 256)
    for tables in ([linear], [linear] * 3):
        data = with_curve(tables)
        assert np.abs(seen(data) - srgb(COLOURS / 255)).max() < A_LEVEL
        assert said(data) == (NAMED_APPLIED,)
    both = with_curve([linear], tag319=(0.68, 0.32, 0.265, 0.69, 0.15, 0.06), tag318=(0.3127, 0.329))
    assert np.abs(seen(both) - srgb(COLOURS / 255 @ FROM_DISPLAY_P3.T)).max() < A_LEVEL


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ([65535 * np.linspace(0, 1, 256) ** 2.2], ()),
        ([np.linspace(0, 65535, 256), np.linspace(0, 65535, 256), np.zeros(256)], (TIFF_CURVE_UNKNOWN,)),
        ([np.zeros(256)], (TIFF_CURVE_UNKNOWN,)),
        ([np.linspace(65535, 0, 256)], (TIFF_CURVE_UNKNOWN,)),
        ([np.linspace(0, 65535, 17)], (TIFF_CURVE_UNKNOWN,)),
    ],
)
def test_the_curve_of_a_tiff_that_changes_nothing_or_cannot_be_followed(tables, what):
    assert said(with_curve(tables)) == what
    assert np.array_equal(seen(with_curve(tables)), COLOURS)


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
    rng = np.random.default_rng(0)
    files = (avif(12, 16), avif_stream(12, 16))
    assert [nclx(data) for data in files] == [(12, 16)] * 2
    for number in range(4000):
        content = bytearray(files[number % 2][: rng.integers(1, 800)])
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
