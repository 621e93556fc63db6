"""What a file says about its values and Pillow leaves as it is stored: their type, white and depth."""

import io
import re
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from data_shards.decoding.depth import to_eight_bits
from data_shards.decoding.formats import formats

NARROWED = "colours of 16 bits narrowed to 8"

_PNG = b"\x89PNG\r\n\x1a\n"
_DEEP_COLOURS = re.compile(r"(RGB|RGBA|RGBX|LA);16([BLN])")
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B"}  # rawmodes take the upper byte; "N" is little-endian where this runs
_UNSIGNED, _SIGNED = 1, 2  # TIFF's SampleFormat


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a file says about its values, taken from it before its pixels are read."""

    white_is_zero: bool = False
    """Whether a grey TIFF of more than 8 bits counts from white to black. (Of up to 8 bits, Pillow turns it.)"""
    sample_format: int = _UNSIGNED
    """TIFF's SampleFormat: 1 unsigned, 2 signed, 3 floating point."""
    bits: int = 8
    """Bits a sample of a TIFF."""
    deep_colours: str | None = None
    """Pillow's rawmode where colours of 16 bits are read as their upper 8."""

    @classmethod
    def of(cls, file: Image.Image) -> "Stored":
        """Of a file that is open, and whose pixels are not read yet."""
        rawmode = _rawmode(file)
        deep = rawmode if _DEEP_COLOURS.fullmatch(rawmode) else None
        if isinstance(file, TiffImagePlugin.TiffImageFile):
            tags = file.tag_v2
            bits, kinds = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
            return cls(
                white_is_zero=tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 and bits[0] > 8,
                sample_format=kinds[0],
                bits=bits[0],
                deep_colours=deep,
            )
        return cls(deep_colours=deep)

    def grey_values(self, picture: Image.Image) -> NDArray[np.generic] | None:
        """The values of a grey picture that 8 unsigned bits do not hold; None where they do, or it has colours."""
        if picture.mode == "L" and self.sample_format == _SIGNED:
            return np.asarray(picture).view(np.int8)
        if picture.mode == "I" and self.sample_format == _UNSIGNED and self.bits == 32:
            return np.asarray(picture).view(np.uint32)
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            return np.asarray(picture)
        return None

    def full_depth(self, picture: Image.Image, data: bytes, done: list[str]) -> Image.Image:
        """A picture of 16-bit colours scaled as `to_eight_bits` says; what was done is appended to `done`.

        Pillow gives the upper 8 bits, which are all that matters where they fill at least half of their range. Else,
        as where a sensor's 12 bits are stored in 16, the lower ones are read too.
        """
        if self.deep_colours is None:
            return picture
        colours = _without_alpha(np.asarray(picture))
        if colours.max(initial=0) < 128 and (low := _lower_bytes(data, self.deep_colours)) is not None:
            scaled, how = to_eight_bits(colours.astype(np.uint16) << 8 | low)
            done.append(how.replace("grey values", "colours of 16 bits"))
            whole = np.asarray(picture).copy()
            whole[..., : scaled.shape[2]] = scaled
            return Image.fromarray(whole)
        done.append(NARROWED)
        return picture


def mend_png_transparency(picture: Image.Image, data: bytes) -> None:
    """Pillow keeps the transparent colour of a PNG as it is stored, but not the pixels of 2, 4 and 3 x 16 bits."""
    colour = picture.info.get("transparency")
    if not data.startswith(_PNG) or colour is None:
        return
    bits = data[24]
    if picture.mode == "L" and bits in (2, 4) and isinstance(colour, int):
        picture.info["transparency"] = colour * 255 // (2**bits - 1)
    elif picture.mode == "RGB" and bits == 16 and isinstance(colour, tuple):
        picture.info["transparency"] = tuple(value >> 8 for value in colour)


def _rawmode(file: Image.Image) -> str:
    """How the decoder takes the bytes of the first tile; empty where that is not said."""
    tiles = getattr(file, "tile", None)
    if not tiles:
        return ""
    words = tiles[0][3]
    word = words[0] if isinstance(words, tuple) and words else words
    return word if isinstance(word, str) else ""


def _without_alpha(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return values[..., : {2: 1, 4: 3}.get(values.shape[2], values.shape[2])]


def _lower_bytes(data: bytes, rawmode: str) -> NDArray[np.uint8] | None:
    """The lower 8 bits of 16-bit colours, upright, H x W x 1 or 3; None where Pillow cannot be brought to give them."""
    mode, order = rawmode.split(";16")
    if mode == "LA":
        if not data.startswith(_PNG):
            return None
        # As RGBA of 8 bits, the same bytes are the upper and lower of L, then of A.
        header = data[12:24] + bytes((8, 6)) + data[26:29]
        data = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    with Image.open(io.BytesIO(data), formats=formats()) as file:
        if mode != "LA":
            other = f"{mode};16{_OTHER_BYTE[order]}"
            file.tile = [
                tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
                for tile in file.tile
            ]
        values = np.asarray(ImageOps.exif_transpose(file))
    return values[..., 1:2] if mode == "LA" else _without_alpha(values)
