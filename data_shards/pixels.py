"""How the pixels of a sample were made and are kept: background, crop, fit, size, filter, encoding.

The same `Pixels` record, kept in the manifest, drives the build, the stream and `verify`, so that `original` shards,
which are decoded, cropped and resized when read, give exactly the pixels that `raw` shards hold.
"""

import functools
import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageColor
from pydantic import Field

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import Decoded, decode, decode_stored
from data_shards.io.configuration import PositiveInt, configuration
from data_shards.io.errors import InputError

Encoding = Literal["raw", "png", "jpeg", "original"]
Fit = Literal["stretch", "pad"]
Colour = Annotated[str, Field(pattern="^#[0-9a-f]{6}$", description="a colour as #rrggbb")]
Filter = Literal["pillow bicubic, antialiased, after the crop"]
JPEG_QUALITY = 95
TAR_BYTES = 1024  # about what a tar adds to a sample: header and padding


def colour(text: str) -> str:
    """A colour as "#rrggbb", from that form or a name such as "white"; raises InputError."""
    try:
        values = ImageColor.getrgb(text)
        if len(values) == 3:
            return "#" + bytes(values).hex()
    except ValueError:  # no colour, or one with more than 255
        pass
    raise InputError(f"{text!r} is not a colour; use a name such as white, or #rrggbb", parameter="background")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image of a source as the shards hold it, and what had to be decided about it."""

    image: NDArray[np.uint8]
    """C x H x W, 0..255."""
    conversions: tuple[str, ...]
    """What was done to it, each in words that hold for all images with which the same was done."""


@configuration
class Pixels:
    """How images become the pixels of the shards: uint8 in 0..255, C x H x W."""

    channels: Literal[1, 3]
    """1 (grey) or 3 (RGB)."""
    height: PositiveInt
    """Rows after the recipe, in pixels."""
    width: PositiveInt
    """Columns after the recipe, in pixels."""
    crop: PositiveInt | Literal["square"] | None = None
    """Side of the centred square cut out before the resize, in pixels of the source; "square": the largest that there
    is; None cuts nothing."""
    resize: bool = False
    """Whether the source is resized to height x width; otherwise it must have that size after the crop."""
    fit: Fit = "stretch"
    """How a source of another shape is resized: pad keeps its shape and fills the rest with the background."""
    background: Colour | None = None
    """What is seen where images are transparent or padded. None, for arrays and in shards of earlier versions: files
    are decoded as they are stored, without regard to transparency, orientation and colour profile."""
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
    def header_bytes(self) -> int:
        """Bytes before the pixels in an image member; 0 where pixels do not lie there as they are."""
        return len(npy_header(self.shape)) if self.encoding == "raw" else 0

    @property
    def member_bytes(self) -> int:
        """About the bytes of one image in a tar, with its header and padding, if it is not compressed."""
        return self.num_bytes + TAR_BYTES

    def to_json(self) -> dict[str, Any]:
        """The record in the manifest. What earlier versions did not know is left out where it has no effect."""
        record = asdict(self)
        return {name: value for name, value in record.items() if name not in _ADDED or value != _ADDED[name]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Pixels":
        """The inverse of `to_json`."""
        return cls(**record)

    def prepare(self, source: bytes | NDArray[np.uint8]) -> Prepared:
        """An image of a source, as file or as H x W x C, to what the shards hold. Raises BadImage."""
        decoded = self.decode_source(source) if isinstance(source, bytes) else Decoded(image=source)
        return Prepared(
            image=self.apply(decoded.image), conversions=(*decoded.conversions, *self._reshaping(decoded.image))
        )

    def _reshaping(self, image: NDArray[np.uint8]) -> Iterator[str]:
        height, width = image.shape[:2]
        if self.crop == "square" and height != width:
            yield "cut to their largest centred square"
        if not self.resize:
            return
        side = self._crop_side(image)
        height, width = (height, width) if side is None else (side, side)
        if height * self.width != width * self.height:
            yield f"padded with {self._ground}" if self.fit == "pad" else "stretched to another shape"
        if height < self.height and width < self.width:
            yield f"enlarged to {self.width} x {self.height} pixels"

    def _crop_side(self, image: NDArray[np.uint8]) -> int | None:
        return min(image.shape[:2]) if self.crop == "square" else self.crop

    @property
    def _ground(self) -> str:
        return self.background or "#000000"

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crops and resizes a decoded source, H x W x C, to the recipe's C x H x W, a view. Raises BadImage."""
        if not image.size:
            raise BadImage(f"{image.shape[1]} x {image.shape[0]} pixels, which are none")
        crop = self._crop_side(image)
        if crop is not None:
            height, width = image.shape[:2]
            if min(height, width) < crop:
                raise BadImage(f"{width} x {height} pixels are too few for a crop of {crop}")
            top, left = (height - crop) // 2, (width - crop) // 2
            image = image[top : top + crop, left : left + crop]
        if self.resize and image.shape[:2] != (self.height, self.width):
            image = self._resized(image)
        if image.shape != (self.height, self.width, self.channels):
            raise BadImage(f"{image.shape[1]} x {image.shape[0]} pixels, not {self.width} x {self.height}")
        return image.transpose(2, 0, 1)

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width, height = self.width, self.height
        picture = _picture(image)
        if self.fit == "pad":
            scale = min(self.width / picture.width, self.height / picture.height)
            width = min(self.width, max(1, round(picture.width * scale)))
            height = min(self.height, max(1, round(picture.height * scale)))
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        if (width, height) != (self.width, self.height):
            whole = Image.new(picture.mode, (self.width, self.height), ImageColor.getcolor(self._ground, picture.mode))
            whole.paste(picture, (round((self.width - width) / 2), round((self.height - height) / 2)))
            picture = whole
        return np.asarray(picture).reshape(self.height, self.width, self.channels)

    def decode_source(self, data: bytes) -> Decoded:
        """An encoded source image. Raises BadImage."""
        if self.background is None:
            return Decoded(image=decode_stored(data, channels=self.channels))
        return decode(data, channels=self.channels, background=self.background)

    def decode_member(self, data: bytes) -> NDArray[np.uint8]:
        """The image member of a shard as C x H x W, uint8. Raises BadImage."""
        if self.encoding == "raw":
            header = npy_header(self.shape)
            if data[: len(header)] != header or len(data) != len(header) + self.num_bytes:
                raise BadImage(f"not a uint8 .npy array of shape {self.shape}")
            return np.frombuffer(data, np.uint8, offset=len(header)).reshape(self.shape)
        if self.encoding == "original":
            return self.apply(self.decode_source(data).image)
        image = decode_stored(data, channels=self.channels)
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


_ADDED = {"fit": "stretch", "background": None}  # fields that records of earlier versions lack, as they are there


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
