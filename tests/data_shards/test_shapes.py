"""Crop and fit: what becomes of images that are not square, against Pillow's own ImageOps."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_shards.build.request import SOURCES, BuildRequest
from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError
from data_shards.pixels import Pixels, colour

RED = "#ff0000"


def photo(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def folder_pixels(tmp_path, **options) -> Pixels:
    return BuildRequest(dataset="folder", out=tmp_path / "out", **{"size": 32, **options}).pixels


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 28, 3), (28, 0, 3)])
@pytest.mark.parametrize("options", [{}, {"crop": "none"}, {"fit": "stretch"}])
def test_an_image_without_pixels_is_unusable(tmp_path, shape, options):
    with pytest.raises(BadImage, match=f"{shape[1]} x {shape[0]} pixels, which are none"):
        folder_pixels(tmp_path, **options).apply(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(("width", "height"), [(300, 100), (100, 300), (64, 64), (101, 60), (20, 10)])
def test_the_default_of_a_folder_is_the_largest_centred_square(tmp_path, width, height):
    image = photo(width, height)
    side, left, top = min(width, height), (width - min(width, height)) // 2, (height - min(width, height)) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(folder_pixels(tmp_path).apply(image), expected)


@pytest.mark.parametrize(("width", "height"), [(300, 100), (100, 300), (64, 64), (101, 60), (20, 10)])
@pytest.mark.parametrize("channels", [1, 3])
def test_without_a_crop_the_whole_image_is_padded_as_pillow_pads(tmp_path, width, height, channels):
    pixels = folder_pixels(tmp_path, crop="none", background="red", channels=channels)
    picture = Image.fromarray(photo(width, height)).convert("L" if channels == 1 else "RGB")
    padded = ImageOps.pad(picture, (32, 32), Image.Resampling.BICUBIC, RED)
    image = np.asarray(picture).reshape(height, width, channels)
    assert np.array_equal(pixels.apply(image), np.asarray(padded).reshape(32, 32, channels).transpose(2, 0, 1))


def test_stretching_is_only_done_when_it_is_asked_for(tmp_path):
    image = photo(300, 100)
    stretched = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(folder_pixels(tmp_path, fit="stretch").apply(image), stretched)


@pytest.mark.parametrize("options", [{}, {"crop": "none"}, {"fit": "stretch"}])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_the_thinnest_images_have_the_size_too(tmp_path, options, size):
    image = np.full((size[1], size[0], 3), 7, np.uint8)
    made = folder_pixels(tmp_path, **options).apply(image)
    assert made.shape == (3, 32, 32)
    assert (made[:, 16, 16] == 7).all()


def test_a_crop_in_pixels_needs_so_many(tmp_path):
    with pytest.raises(BadImage, match="20 x 10 pixels are too few for a crop of 100"):
        folder_pixels(tmp_path, crop=100).apply(photo(20, 10))


@pytest.mark.parametrize(
    ("size", "options", "said"),
    [
        ((300, 100), {}, {"cut to their largest centred square"}),
        ((64, 64), {}, set()),
        ((20, 20), {}, {"enlarged to 32 x 32 pixels"}),
        ((300, 100), {"crop": "none"}, {"padded with #ffffff"}),
        ((300, 100), {"fit": "stretch"}, {"stretched to another shape"}),
        ((300, 200), {"crop": 100}, set()),
        ((20, 10), {"crop": "none"}, {"padded with #ffffff", "enlarged to 32 x 32 pixels"}),
    ],
)
def test_what_was_done_to_the_shape_is_said(tmp_path, size, options, said):
    assert set(folder_pixels(tmp_path, **options).prepare(photo(*size)).conversions) == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "square", "fit": "stretch"}, "fit: a square needs none"),
        ({"crop": 40, "fit": "pad"}, "fit: a square needs none"),
        ({"crop": 0}, "crop: 0 is not a whole number of at least 1"),
        ({"crop": "middle"}, "crop: 'middle' is not a number of pixels, square or none"),
        ({"fit": "squash"}, "fit: 'squash' is not one of stretch, pad"),
        ({"background": "whitish"}, "background: 'whitish' is not a colour; use a name such as white, or #rrggbb"),
        ({"background": "#ffffff80"}, "background: '#ffffff80' is not a colour"),
        ({"dataset": "mnist", "size": None, "background": "red"}, "background: mnist holds no transparent images"),
        ({"dataset": "mnist", "size": None, "fit": "pad"}, "fit: nothing is resized"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        BuildRequest(**{"dataset": "folder", "out": tmp_path / "out", "size": 32, **options})


@pytest.mark.parametrize(
    ("text", "value"), [("white", "#ffffff"), ("#F0E0D0", "#f0e0d0"), ("rgb(1,2,3)", "#010203"), ("#abc", "#aabbcc")]
)
def test_a_colour_is_recorded_in_one_form(text, value):
    assert colour(text) == value


def test_records_of_earlier_versions_are_still_written_as_they_were():
    pixels = SOURCES["mnist"].pixels(size=None, crop=None, fit=None, background=None, channels=None, encoding="raw")
    assert set(pixels.to_json()) == {"channels", "height", "width", "crop", "resize", "filter", "encoding"}
