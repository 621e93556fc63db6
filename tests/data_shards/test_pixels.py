"""Crop, resize and encodings against Pillow and NumPy used directly."""

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from support.celeba_tree import jpeg_of_celeba_size

from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError
from data_shards.pixels import Encoding, Pixels, npy_header

CELEBA = {"channels": 3, "height": 64, "width": 64, "crop": 140, "resize": True}


def test_the_celeba_crop_is_rows_39_to_179_and_columns_19_to_159():
    pixels = Pixels(channels=3, height=140, width=140, crop=140)
    image = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    assert np.array_equal(pixels.apply(image), image[39:179, 19:159].transpose(2, 0, 1))


def test_the_whole_recipe_is_what_pillow_makes_of_the_file():
    data = jpeg_of_celeba_size(1)
    pixels = Pixels(**CELEBA)
    picture = Image.open(io.BytesIO(data)).crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels.prepare(data).image, np.asarray(picture).transpose(2, 0, 1))


def test_a_resize_averages_fine_stripes_instead_of_sampling_them():
    stripes = np.zeros((128, 128, 1), np.uint8)
    stripes[:, ::2] = 255
    small = Pixels(channels=1, height=32, width=32, resize=True).apply(stripes)
    assert np.abs(small.astype(int) - 127).max() < 20


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_encodings_give_the_pixels_back(encoding, channels):
    pixels = Pixels(channels=channels, height=5, width=7, encoding=encoding)
    image = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    _, data = pixels.encode_member(image)
    assert np.array_equal(pixels.decode_member(data), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_smooth_images_to_a_few_levels(channels):
    pixels = Pixels(channels=channels, height=64, width=64, encoding="jpeg")
    smooth = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.broadcast_to(smooth, pixels.shape).copy()
    extension, data = pixels.encode_member(image)
    assert extension == "jpg"
    assert np.abs(pixels.decode_member(data).astype(int) - image).max() <= 3


def test_original_bytes_decode_to_the_pixels_of_raw():
    data = jpeg_of_celeba_size(2)
    raw, original = Pixels(**CELEBA), Pixels(**CELEBA, encoding="original")
    assert np.array_equal(original.decode_member(data), raw.prepare(data).image)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (3, 1000, 1000)])
def test_the_npy_header_is_the_one_numpy_writes(shape):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(shape, np.uint8))
    assert buffer.getvalue().startswith(npy_header(shape))
    assert len(buffer.getvalue()) == len(npy_header(shape)) + np.prod(shape)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        jpeg_of_celeba_size(3)[:3000],
        b"\xff\xd8\xff\xe0 nothing more",
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
)
def test_bytes_that_are_no_image_are_bad(data):
    with pytest.raises(BadImage):
        Pixels(**CELEBA).decode_source(data)


def test_a_four_colour_jpeg_is_converted():
    buffer = io.BytesIO()
    Image.new("CMYK", (178, 218), (0, 255, 255, 0)).save(buffer, "JPEG")
    image = Pixels(**CELEBA).decode_source(buffer.getvalue()).image
    assert image.shape == (218, 178, 3)
    assert image[..., 0].min() > 200 > 60 > image[..., 1:].max()


def test_a_pickled_array_is_not_read():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadImage, match="not a uint8"):
        Pixels(channels=1, height=2, width=2).decode_member(buffer.getvalue())


def test_an_image_of_another_size_is_bad_where_nothing_is_resized():
    with pytest.raises(BadImage, match="5 x 4 pixels, not 28 x 28"):
        Pixels(channels=1, height=28, width=28).apply(np.zeros((4, 5, 1), np.uint8))


@pytest.mark.parametrize("wrong", [{"encoding": "webp"}, {"channels": 2}, {"height": 0}, {"filter": "nearest"}])
def test_an_impossible_recipe_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Pixels(**{"channels": 1, "height": 8, "width": 8, **wrong})


def test_the_record_in_the_manifest_gives_the_recipe_back():
    for encoding in get_args(Encoding):
        pixels = Pixels(**CELEBA, encoding=encoding)
        assert Pixels.from_json(pixels.to_json()) == pixels
