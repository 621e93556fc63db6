"""How the pixels of a sample were made and are kept: crop, size, filter, encoding.

The same `Pixels` record, kept in the manifest, drives the build, the stream and `verify`, so that `original` shards,
which are cropped and resized when read, give exactly the pixels that `raw` shards hold.
"""

import functools
import io
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from data_shards.io.configuration import PositiveInt, configuration

Encoding = Literal["raw", "png", "jpeg", "original"]
# What a shard may hold. Formats that run code when they are read (.pyd, .pickle, .pth) are refused everywhere.
IMAGE_EXTENSIONS = frozenset({"npy", "png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"})
Filter = Literal["pillow bicubic, antialiased, after the crop"]
JPEG_QUALITY = 95
TAR_BYTES = 1024  # about what a tar adds to a sample: header and padding


class BadImage(Exception):
    """The bytes of one image cannot be used; the message says why."""


@configuration
class Pixels:
    """How images become the pixels of the shards: uint8 in 0..255, C x H x W."""

    channels: Literal[1, 3]
    """1 (grey) or 3 (RGB)."""
    height: PositiveInt
    """Rows after the recipe, in pixels."""
    width: PositiveInt
    """Columns after the recipe, in pixels."""
    crop: PositiveInt | None = None
    """Side of the centred square cut out before the resize, in pixels of the source; None cuts nothing."""
    resize: bool = False
    """Whether the source is resized to height x width; otherwise it must have that size after the crop."""
    filter: Filter = get_args(Filter)[0]
    """How a resize is done."""
    encoding: Encoding = "raw"
    """raw: uint8 .npy of shape C x H x W; png; jpeg (lossy, quality 95); original: the bytes of the source."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def num_bytes(self) -> int:
        """Bytes of one image as uint8."""
        return self.channels * self.height * self.width

    @property
    def member_bytes(self) -> int:
        """About the bytes of one image in a tar, with its header and padding, if it is not compressed."""
        return self.num_bytes + TAR_BYTES

    def to_json(self) -> dict[str, Any]:
        """The record in the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Pixels":
        """The inverse of `to_json`."""
        return cls(**record)

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crops and resizes a decoded source, H x W x C, to the recipe's C x H x W, a view. Raises BadImage."""
        if self.crop is not None:
            height, width = image.shape[:2]
            if min(height, width) < self.crop:
                raise BadImage(f"{width} x {height} pixels are too few for a crop of {self.crop}")
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            image = image[top : top + self.crop, left : left + self.crop]
        if self.resize and image.shape[:2] != (self.height, self.width):
            resized = _picture(image).resize((self.width, self.height), Image.Resampling.BICUBIC)
            image = np.asarray(resized).reshape(self.height, self.width, self.channels)
        if image.shape != (self.height, self.width, self.channels):
            raise BadImage(f"{image.shape[1]} x {image.shape[0]} pixels, not {self.width} x {self.height}")
        return image.transpose(2, 0, 1)

    def decode_source(self, data: bytes) -> NDArray[np.uint8]:
        """An encoded source image as H x W x C, uint8. Raises BadImage."""
        if data[:3] == b"\xff\xd8\xff":
            return _decode_jpeg(data, self.channels)
        return _decode_by_pillow(data, self.channels)

    def decode_member(self, data: bytes) -> NDArray[np.uint8]:
        """The image member of a shard as C x H x W, uint8. Raises BadImage."""
        if self.encoding == "raw":
            header = npy_header(self.shape)
            if data[: len(header)] != header or len(data) != len(header) + self.num_bytes:
                raise BadImage(f"not a uint8 .npy array of shape {self.shape}")
            return np.frombuffer(data, np.uint8, offset=len(header)).reshape(self.shape)
        image = self.decode_source(data)
        if self.encoding == "original":
            return self.apply(image)
        if image.shape != (self.height, self.width, self.channels):
            raise BadImage(f"shape {image.shape}, not {(self.height, self.width, self.channels)}")
        return image.transpose(2, 0, 1)

    def encode_member(self, image: NDArray[np.uint8]) -> tuple[str, bytes]:
        """Extension and bytes of the image member for `image`, C x H x W; not for the encoding `original`."""
        if self.encoding == "raw":
            return "npy", npy_header(self.shape) + image.tobytes()
        if self.encoding == "jpeg":
            colours = "GRAY" if self.channels == 1 else "RGB"
            pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
            return "jpg", simplejpeg.encode_jpeg(
                pixels, quality=JPEG_QUALITY, colorspace=colours, colorsubsampling="444"
            )
        buffer = io.BytesIO()
        Image.fromarray(image[0] if self.channels == 1 else image.transpose(1, 2, 0)).save(buffer, "PNG")
        return "png", buffer.getvalue()


@functools.cache
def npy_header(shape: tuple[int, int, int]) -> bytes:
    """The first bytes of a .npy file with a uint8 array of that shape; the pixels follow."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    start = b"\x93NUMPY\x01\x00"
    room = -(len(start) + 2 + len(text) + 1) % 64
    return start + struct.pack("<H", len(text) + room + 1) + text.encode() + b" " * room + b"\n"


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    """Pillow's form of H x W x C without a copy first; where the rows lie apart, Pillow skips what is between."""
    height, width, channels = image.shape
    if image.strides[1:] != (channels, 1):
        image = np.ascontiguousarray(image)
    stride = image.strides[0]
    rows = np.lib.stride_tricks.as_strided(image, ((height - 1) * stride + width * channels,), (1,))  # bytes
    mode = "L" if channels == 1 else "RGB"
    return Image.frombytes(mode, (width, height), rows.data, "raw", mode, stride)


def _decode_jpeg(data: bytes, channels: int) -> NDArray[np.uint8]:
    try:
        return simplejpeg.decode_jpeg(data, colorspace="GRAY" if channels == 1 else "RGB")
    except ValueError as error:
        # simplejpeg does not read four-colour JPEGs; Pillow converts them, and refuses what is really broken.
        try:
            return _decode_by_pillow(data, channels)
        except BadImage:
            raise BadImage(f"JPEG does not decode: {error}") from error


def _decode_by_pillow(data: bytes, channels: int) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            image = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"does not decode: {error}") from error
    return image.reshape(*image.shape[:2], channels)
