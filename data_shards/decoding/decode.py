"""One image file to 8-bit pixels, as a person at a screen sees it.

The first frame, turned upright, with at most 8 bits a channel, in sRGB, on a background where it is transparent.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.bmp import bmp_profile
from data_shards.decoding.colour import to_srgb
from data_shards.decoding.depth import to_eight_bits
from data_shards.decoding.formats import formats, missing_plugin_by_content
from data_shards.decoding.named_colours import named_colours
from data_shards.decoding.stored import Stored, mend_png_transparency
from data_shards.decoding.tiff import CHANNELS_LEFT_OUT, has_further_channels, is_misread, is_tiff, read_tiff
from data_shards.io.errors import MachineFault, machine_fault

T = TypeVar("T")
VERSION = 3
"""Of the pixels that files come to; counted up where files of some kind come to others than before."""
MOST_PIXELS = 178_956_970
"""Larger images are refused, as Pillow refuses them: a small file may claim to be larger than the memory."""
TURNED = "turned as their EXIF orientation says"
EXIF_UNREADABLE = "EXIF unreadable, taken to be upright"
FIRST_FRAME = "first of several frames or pages taken"
UNUSED_ALPHA = "alpha of a BMP, TGA or DDS that is 0 everywhere ignored"
MADE_GREY = "colours made grey"
MADE_RGB = "grey stored as RGB"
# Programs that write 32 bits a pixel often leave the last 8 at 0, and viewers show such files as opaque.
_ALPHA_OFTEN_UNUSED = ("BMP", "TGA", "DDS")
_VARYING = re.compile(r" at 0x[0-9a-fA-F]+| \([^()]*\d[^()]*\)")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image, and what had to be decided about it."""

    image: NDArray[np.uint8]
    """H x W x C, 0..255."""
    conversions: tuple[str, ...] = ()
    """What was done to it, each in words that hold for all images with which the same was done."""


def decode(data: bytes, *, channels: int, background: str) -> Decoded:
    """The image in the bytes of a file, with 1 (grey) or 3 (RGB) channels; raises BadImage.

    background: "#rrggbb", seen where the image is transparent
    """
    if (shape := _plain_jpeg(data)) is not None:
        width, height, colours = shape
        _refuse_giant(width, height)
        with contextlib.suppress(ValueError):  # damaged or unusual: Pillow reads it, or says what is wrong
            image = simplejpeg.decode_jpeg(data, colorspace=_jpeg_colours(channels))
            return Decoded(image=image, conversions=_channels(colours == 1, channels))
    return _decode_by_pillow(data, channels, background)


def decode_stored(data: bytes, *, channels: int) -> NDArray[np.uint8]:
    """The colour values as they are stored, H x W x C: no orientation, profile or background. Raises BadImage.

    For the PNG and JPEG members that a build has encoded, and for all members of shards of earlier versions.
    """
    if data[:3] == b"\xff\xd8\xff":
        with contextlib.suppress(ValueError):  # as above
            return simplejpeg.decode_jpeg(data, colorspace=_jpeg_colours(channels))
    with warnings.catch_warnings(action="ignore"):
        try:
            with Image.open(io.BytesIO(data), formats=formats()) as picture:
                image = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        except Exception as error:
            raise _fault(error) from error
    return image.reshape(*image.shape[:2], channels)


def _plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and colours of a JPEG of 1 or 3 colours whose header has no segment that may hold an orientation, a
    profile or further pictures; else None.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    place, shape = 2, None
    while data[place : place + 1] == b"\xff" and place + 10 <= len(data):
        marker = data[place + 1]
        if marker == 0xDA:  # start of scan: what follows is the image
            return shape
        if marker in (0xE1, 0xE2):  # APP1: EXIF or XMP; APP2: ICC profile or several pictures
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            colours = data[place + 9]
            if colours not in (1, 3):
                return None
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            shape = width, height, colours
        # Any number of 0xff may stand before a marker.
        place += 1 if marker == 0xFF else 2 + (data[place + 2] << 8 | data[place + 3])
    return None


def _jpeg_colours(channels: int) -> str:
    return "GRAY" if channels == 1 else "RGB"


def _decode_by_pillow(data: bytes, channels: int, background: str) -> Decoded:
    done: list[str] = []
    # Pillow warns of much that is no fault of the pixels. What it raises for a damaged file may be of any kind.
    with warnings.catch_warnings(action="ignore"):
        try:
            with _opened(data, done) as file:
                _refuse_giant(*file.size)
                stored = Stored.of(file)
                picture = _upright(file, done)
                mend_png_transparency(picture, data)
                picture = stored.full_depth(picture, data, done)
                picture = _shallow(picture, stored, done)
                picture, colours = to_srgb(picture, _profile(file, data), named_colours(file, data))
                done += colours
                grey = picture.mode in ("L", "LA")
                picture = _opaque(picture, background, done, may_be_unused=file.format in _ALPHA_OFTEN_UNUSED)
                image = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
                if _has_more_frames(file):
                    done.append(FIRST_FRAME)
        except BadImage:
            raise
        except Exception as error:
            if isinstance(error, UnidentifiedImageError) and (package := missing_plugin_by_content(data)) is not None:
                raise BadImage(f"does not decode: needs the package {package}") from error
            raise _fault(error) from error
    return Decoded(image=image.reshape(*image.shape[:2], channels), conversions=(*done, *_channels(grey, channels)))


def _opened(data: bytes, done: list[str]) -> Image.Image:
    """The file as Pillow opens it, or the first page of a TIFF that it cannot open or would misread."""
    try:
        file = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError:
        if not is_tiff(data):
            raise
        return read_tiff(data, done)
    if is_misread(file):
        return read_tiff(data, done)
    if has_further_channels(file):
        done.append(CHANNELS_LEFT_OUT)
    return file


def _profile(file: Image.Image, data: bytes) -> bytes | None:
    return bmp_profile(data) if file.format == "BMP" else file.info.get("icc_profile")


def _fault(error: Exception) -> BadImage | MachineFault:
    if isinstance(error, MemoryError):  # no image that is not refused as too large takes more than a few GB
        return MachineFault("the memory does not suffice to decode an image; use fewer processes")
    if (fault := machine_fault(error)) is not None:
        return fault
    if isinstance(error, UnidentifiedImageError):
        return BadImage("does not decode: not an image that Pillow reads")
    # Without addresses of objects: the reason is recorded, and is to be the same in every build. And without numbers of
    # bytes in brackets, so that the reasons of all truncated files are one.
    reason = _VARYING.sub("", " ".join(str(error).split()))
    return BadImage(f"does not decode: {reason or type(error).__name__}")


def _refuse_giant(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise BadImage(f"{width} x {height} pixels, more than the {MOST_PIXELS:,} that are read")


def _channels(grey: bool, channels: int) -> tuple[str, ...]:
    if grey == (channels == 1):
        return ()
    return (MADE_RGB,) if grey else (MADE_GREY,)


def _upright(file: Image.Image, done: list[str]) -> Image.Image:
    """The first frame as its EXIF data, or XMP, say that the camera was held."""
    # The orientation before the pixels: for a TIFF, Pillow turns them when they are read and forgets that it did.
    orientation = _tried(lambda: file.getexif().get(ExifTags.Base.Orientation, 1))
    file.load()  # once: after a failure, some of Pillow's readers give black where they are asked again
    picture = _tried(lambda: ImageOps.exif_transpose(file))
    if orientation is None or picture is None:
        done.append(EXIF_UNREADABLE)
    elif orientation in range(2, 9):
        done.append(TURNED)
    return file.copy() if picture is None else picture


def _tried(action: Callable[[], T]) -> T | None:
    """What `action` gives; None where the file does not let it."""
    try:
        return action()
    except MemoryError:
        raise  # a fault of the machine, not of the file
    except Exception:
        return None


def _shallow(picture: Image.Image, stored: Stored, done: list[str]) -> Image.Image:
    """At most 8 bits a channel. Pillow itself keeps only grey images deeper than that."""
    values = stored.grey_values(picture)
    if values is None:
        return picture
    scaled, how = to_eight_bits(values)
    done.append(how)
    shallow = Image.fromarray(255 - scaled if stored.white_is_zero else scaled)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        shallow.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return shallow


def _opaque(picture: Image.Image, background: str, done: list[str], *, may_be_unused: bool) -> Image.Image:
    """The picture on the background. may_be_unused: whether alpha that is 0 everywhere means nothing."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    extrema = picture.getchannel("A").getextrema()
    if unused := may_be_unused and extrema == (0, 0):
        done.append(UNUSED_ALPHA)
    if unused or extrema == (255, 255):
        return picture.convert(picture.mode.removesuffix("A"))
    done.append(f"transparency composited on {background}")
    ground = Image.new("RGBA", picture.size, ImageColor.getrgb(background))
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _has_more_frames(file: Image.Image) -> bool:
    if file.format == "PSD":
        return False  # its frames are layers; the first is what they make together
    animated = _tried(lambda: bool(getattr(file, "is_animated", False)))
    return animated is None or animated  # None: there is something after the first frame, though it is damaged
