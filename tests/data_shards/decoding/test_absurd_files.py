"""Files of absurd sizes and contents."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.image_kinds import PHOTO, saved

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import MOST_PIXELS, decode, decode_stored
from data_shards.decoding.depth import to_eight_bits


def seen(data: bytes, channels: int = 3) -> np.ndarray:
    return decode(data, channels=channels, background="#ffffff").image


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF"])
def test_thin_images_are_images(size, form):
    assert seen(saved(Image.new("RGB", size, (9, 8, 7)), form)).shape == (size[1], size[0], 3)


def giant_jpeg() -> bytes:
    data = bytearray(saved(PHOTO, "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def giant_png() -> bytes:
    data = bytearray(saved(PHOTO, "PNG"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("data", [giant_jpeg(), giant_png()], ids=["JPEG", "PNG"])
def test_a_file_that_claims_more_pixels_than_memory_holds_is_refused(data):
    with pytest.raises(BadImage, match="pixels"):
        seen(data)


def test_the_limit_is_the_one_of_pillow():
    assert MOST_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("data", [b"", b"\0", b"text", bytes(1000), b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(BadImage, match="does not decode"):
        seen(data)


def test_postscript_is_never_run():
    buffer = io.BytesIO()
    PHOTO.save(buffer, "EPS")
    with pytest.raises(BadImage, match="not an image that Pillow reads"):
        seen(buffer.getvalue())


def test_a_damaged_exif_leaves_the_image_upright_and_is_said():
    data = saved(PHOTO, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20))
    decoded = decode(data, channels=3, background="#ffffff")
    assert np.array_equal(decoded.image, np.asarray(PHOTO))


def test_a_file_without_a_finite_value_is_refused():
    with pytest.raises(BadImage, match="no value is a finite number"):
        to_eight_bits(np.full((2, 2), np.nan, np.float32))


def test_a_value_beyond_every_range_is_black():
    assert to_eight_bits(np.full((2, 2), 70_000, np.int32))[0].max() == 0


def test_shards_of_earlier_versions_are_decoded_as_they_were():
    picture = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert (decode_stored(saved(picture, "PNG"), channels=3) == (10, 20, 30)).all()


def test_files_cut_short_anywhere_have_one_reason():
    data = saved(PHOTO.resize((300, 200)), "JPEG")
    reasons = set()
    for length in (2000, 3000, 4001):
        with pytest.raises(BadImage) as raised:
            seen(data[:length])
        reasons.add(str(raised.value))
    assert reasons == {"does not decode: image file is truncated"}
