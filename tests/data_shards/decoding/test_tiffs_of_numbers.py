"""TIFFs of numbers that Pillow does not read, or reads wrongly, against the values that were written."""

import importlib.util
import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import icc_profiles
from support.handmade_images import tiff
from support.image_kinds import GREY, PHOTO, converted

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import FIRST_FRAME, MADE_RGB, TURNED, decode
from data_shards.decoding.stored import NARROWED
from data_shards.decoding.tiff import CHANNELS_LEFT_OUT

COLOURS, LEVELS = np.asarray(PHOTO), np.asarray(GREY)
WHOLE = "scaled from 0..1 to 0..255"
OWN = "scaled from the file's own range to 0..255"
ALPHA = np.linspace(0, 1, LEVELS.size).reshape(*LEVELS.shape, 1)


def written(values: np.ndarray, **options) -> bytes:
    """The bytes of a TIFF with those values."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **options)
    return buffer.getvalue()


def seen(data: bytes, channels: int = 3) -> np.ndarray:
    return decode(data, channels=channels, background="#ffffff").image


def said(data: bytes) -> set[str]:
    return set(decode(data, channels=3, background="#ffffff").conversions)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_grey_of_any_floating_point_type_is_scaled_as_that_of_32_bits(kind):
    values = (LEVELS / 255).astype(kind)
    assert np.array_equal(seen(tiff(values, 1), 1)[..., 0], LEVELS)
    assert said(tiff(values, 1)) == {f"grey values {WHOLE}", MADE_RGB}
    assert np.array_equal(seen(tiff(values, 0), 1)[..., 0], 255 - LEVELS)


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_grey_of_64_bits_is_scaled_by_its_own_range(kind):
    values = LEVELS.astype(kind) * 10**12
    low, high = int(LEVELS.min()), int(LEVELS.max())
    assert np.array_equal(seen(tiff(values, 1), 1)[..., 0], np.rint((LEVELS - low) / (high - low) * 255))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_colours_of_any_floating_point_type_are_scaled_together(kind):
    data = tiff((COLOURS / 255).astype(kind), 2)
    assert np.array_equal(seen(data), COLOURS)
    assert said(data) == {f"colours {WHOLE}"}


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint32])
def test_colours_of_any_integer_type_are_scaled_by_their_own_range(kind):
    values = (COLOURS.astype(np.int64) - 128).astype(kind) if kind != np.uint32 else COLOURS.astype(kind) * 16_843_009
    low, high = float(values.min()), float(values.max())
    data = tiff(values, 2)
    assert np.array_equal(seen(data), np.rint((values.astype(float) - low) / (high - low) * 255))
    assert said(data) == {f"colours {OWN}"}


@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_planes_and_simple_compressions_make_no_difference(compression, planes):
    values = (COLOURS / 255).astype(np.float32)
    values = values if planes == "contig" else np.moveaxis(values, 2, 0)
    data = written(values, photometric="rgb", planarconfig=planes, compression=compression)
    assert np.array_equal(seen(data), COLOURS)


@pytest.mark.parametrize("order", ["<", ">"])
def test_uncompressed_planes_of_16_bits_are_not_taken_for_planes_of_8(order):
    values = np.moveaxis(COLOURS.astype(np.uint16) * 257, 2, 0)
    data = written(values, photometric="rgb", planarconfig="separate", byteorder=order)
    assert np.array_equal(seen(data), COLOURS)
    assert said(data) == {NARROWED}


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_alpha_of_numbers_is_composited(kind):
    values = np.concatenate([COLOURS / 255 * (ALPHA if kind == "assocalpha" else 1), ALPHA], 2).astype(np.float32)
    values[..., :3][np.broadcast_to(ALPHA == 0, COLOURS.shape)] = 0
    data = written(values, photometric="rgb", extrasamples=[kind])
    # What is stored has been rounded once before it is composited, and divided by alpha where it is multiplied by it.
    assert np.abs(seen(data) - (COLOURS * ALPHA + 255 * (1 - ALPHA))).max() < (2.5 if kind == "assocalpha" else 1.5)


def test_grey_and_alpha_of_numbers_are_composited():
    values = np.concatenate([LEVELS[..., None] / 255, ALPHA], 2)
    data = written(values, photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    assert seen(data).shape == COLOURS.shape
    data = written(values, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    assert np.abs(seen(data, 1)[..., 0] - (LEVELS * ALPHA[..., 0] + 255 * (1 - ALPHA[..., 0]))).max() < 1.5


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_channels_that_are_no_colours_are_left_out_and_it_is_said(kind):
    values = np.stack([LEVELS, 255 - LEVELS, LEVELS // 2, LEVELS // 3, LEVELS // 4], 2).astype(kind)
    data = written(values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(seen(data, 1)[..., 0], LEVELS)
    assert CHANNELS_LEFT_OUT in said(data)


def test_channels_that_pillow_leaves_out_are_said():
    values = np.stack([LEVELS, 255 - LEVELS, LEVELS // 2])
    data = written(values, photometric="minisblack", planarconfig="separate", compression="zlib")
    assert np.array_equal(seen(data, 1)[..., 0], LEVELS)
    assert CHANNELS_LEFT_OUT in said(data)


def test_orientation_profile_and_further_pages_hold_for_them_too():
    values, wide = (COLOURS / 255).astype(np.float32), icc_profiles.wide_rgb()
    assert np.array_equal(seen(tiff(values, 2, orientation=6)), np.rot90(COLOURS, -1))
    assert TURNED in said(tiff(values, 2, orientation=6))
    assert np.array_equal(seen(written(values, photometric="rgb", iccprofile=wide)), converted(PHOTO, wide))
    several = written(np.stack([values, 1 - values]), photometric="rgb")
    assert np.array_equal(seen(several), COLOURS)
    assert FIRST_FRAME in said(several)


def test_what_is_not_read_is_said_with_what_would_be():
    for values, options, reason in (
        ((LEVELS * (1 + 1j)).astype(np.complex64), {}, "a TIFF of 1 x complex64 a pixel; save it as integers"),
        (np.zeros((4, 16, 16)), {"volumetric": True, "tile": (4, 16, 16), "photometric": "minisblack"}, "one layer"),
        (np.zeros((8, 8, 4), np.float32), {"photometric": "separated"}, "4 x float32 a pixel, whose colours"),
    ):
        with pytest.raises(BadImage, match=reason):
            seen(written(values, **options))


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs is installed")
def test_a_compression_without_its_decoder_is_said_by_name():
    data = bytearray(written(LEVELS.astype(np.float64), compression="zlib"))
    tag = data.index(b"\x03\x01\x03\x00")  # Compression, a short
    for number, name in ((5, "LZW"), (50000, "ZSTD")):
        data[tag + 8 : tag + 10] = number.to_bytes(2, "little")
        with pytest.raises(BadImage, match=f"1 x float64 a pixel, compressed by {name}; install imagecodecs, or save"):
            seen(bytes(data))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_tiff_that_was_cut_off_is_unreadable(compression, share):
    noise = np.random.default_rng(0).random((32, 32, 3))
    data = written(noise, photometric="rgb", compression=compression)
    with pytest.raises(BadImage):
        seen(data[: int(len(data) * share)])


def test_a_small_file_that_claims_a_giant_image_is_refused():
    data = bytearray(written(np.zeros((8, 8), np.float64), compression="zlib"))
    for tag in (b"\x00\x01", b"\x01\x01", b"\x16\x01"):  # width, length, rows a strip
        place = data.index(tag, 8)
        data[place + 2 : place + 4], data[place + 8 : place + 12] = b"\x04\x00", (60_000).to_bytes(4, "little")
    with pytest.raises(BadImage, match="more bytes than are read"):
        seen(bytes(data))


def test_damaged_ones_are_unreadable_and_nothing_else():
    rng = np.random.default_rng(0)
    files = [
        tiff((LEVELS / 255).astype(np.float64), 1),
        written((COLOURS / 255).astype(np.float32), photometric="rgb", compression="zlib"),
        written(np.moveaxis(COLOURS.astype(np.uint16) * 257, 2, 0), photometric="rgb", planarconfig="separate"),
    ]
    reasons = []
    for number in range(600):
        content = bytearray(files[number % 3])
        for place in rng.integers(0, len(content) if number % 2 else 400, 6):
            content[place] = rng.integers(256)
        try:
            assert seen(bytes(content)).dtype == np.uint8
        except BadImage as error:
            reasons.append(str(error))
    assert len(reasons) > 100
    assert [reason for reason in reasons if " at 0x" in reason or "\n" in reason] == []


def test_pillow_itself_would_give_another_image():
    """So that the case can go when Pillow reads these planes."""
    values = np.moveaxis(COLOURS.astype(np.uint16) * 257, 2, 0)
    with Image.open(io.BytesIO(written(values, photometric="rgb", planarconfig="separate"))) as file:
        assert np.abs(np.asarray(file).astype(int) - COLOURS).max() > 100
