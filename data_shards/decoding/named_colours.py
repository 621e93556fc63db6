"""What a file says about its colours where it holds no ICC profile: by numbers, by primaries and gamma, by a name."""

import functools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from data_shards.decoding.bmp import names_other_colours
from data_shards.decoding.colour_space import ColourSpace, numbered_space, srgb_curve
from data_shards.decoding.nclx import nclx

UNKNOWN = "colours of a kind that is not known here (cICP or nclx) taken for sRGB"
NO_GAMMA = "primaries without a gamma (cHRM) not applied, and the colours taken for sRGB"
BMP_UNKNOWN = "end points, gamma or a linked profile of a BMP not applied, and the colours taken for sRGB"
TIFF_CURVE_UNKNOWN = "TransferFunction of a TIFF not applied, and the brightness taken for sRGB's"
ODD_PRIMARIES = "primaries that do not make up their white ignored, and the colours taken for sRGB"

SCREEN_GAMMA = 2.2
_SAME_GAMMA = 0.05  # as libpng: a smaller difference from the screen's is not seen
_PLAUSIBLE_GAMMA = (0.1, 10.0)
_NO_MATRIX, _FULL_RANGE = 0, 1
_ADOBE_RGB = ColourSpace(red=(0.64, 0.33), green=(0.21, 0.71), blue=(0.15, 0.06), white=(0.3127, 0.329), curve=(2.2,))
_SRGB = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
_SAME_POINT = 0.005  # what tools round to differs by less
_TRANSFER, _WHITE_POINT, _PRIMARIES, _TRANSFER_RANGE = 301, 318, 319, 342  # tags of a TIFF
_SAME_LIGHT = 0.01  # a gamma of 2.2 differs by less from sRGB's curve
_PNG_HEADER = 8


@dataclass(frozen=True, kw_only=True)
class NamedColours:
    """What is to be done to the colours of a file."""

    profile: bytes | None = None
    """An ICC profile of its space; None: that of a screen, but for the gamma."""
    high_dynamic_range: bool = False
    """Whether what is brighter than white paper becomes white."""
    gamma: float | None = None
    """Exponent of a PNG that is encoded otherwise than for a screen, 0.1 to 10, where its primaries are not named."""
    remarks: tuple[str, ...] = ()
    """What cannot be done, in words that hold for all such images."""


def named_colours(file: Image.Image, data: bytes) -> NamedColours:
    """What a file without an ICC profile says. The file is open, and its pixels need not be read yet."""
    if file.info.get("icc_profile"):
        return NamedColours()
    if file.format == "PNG":
        return _of_png(file, data)
    if file.format in ("AVIF", "HEIF"):
        numbers = nclx(data)
        return NamedColours() if numbers is None else _numbered(*numbers)
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        return _of_tiff(file)
    if file.format == "BMP":
        return NamedColours(remarks=(BMP_UNKNOWN,) if names_other_colours(data) else ())
    if file.format in ("JPEG", "MPO") and _says_adobe_rgb(file):
        return _of_space(_ADOBE_RGB, ODD_PRIMARIES)
    return NamedColours()


@functools.lru_cache(maxsize=64)
def _numbered(primaries: int, transfer: int) -> NamedColours:
    return _of_space(numbered_space(primaries, transfer), UNKNOWN)


def _of_space(space: ColourSpace | None, otherwise: str) -> NamedColours:
    profile = None if space is None else space.profile()
    if space is None or profile is None:
        return NamedColours(remarks=(otherwise,))
    return NamedColours(profile=profile, high_dynamic_range=space.high_dynamic_range)


def _of_png(file: Image.Image, data: bytes) -> NamedColours:
    """cICP before sRGB before cHRM and gAMA, as the PNG specification (third edition) orders them."""
    if (chunk := _cicp(data)) is not None:
        primaries, transfer, matrix, full = chunk
        whole = (matrix, full) == (_NO_MATRIX, _FULL_RANGE)
        return _numbered(primaries, transfer) if whole else NamedColours(remarks=(UNKNOWN,))
    if "srgb" in file.info:
        return NamedColours()
    gamma = _gamma(file)
    points = file.info.get("chromaticity")
    if points is None or file.mode in ("1", "L", "LA", "I", "I;16"):
        return NamedColours(gamma=gamma)
    points = (*points[2:], *points[:2])
    if _is_srgb(points):
        return NamedColours(gamma=gamma)
    if "gamma" not in file.info:  # browsers do not apply these either
        return NamedColours(remarks=(NO_GAMMA,))
    return _of_points(points, srgb_curve() if gamma is None else (1 / gamma,))


def _of_tiff(file: TiffImagePlugin.TiffImageFile) -> NamedColours:
    """Primaries, white and curve of a TIFF of colours; a screen's where they are not said (TIFF 6.0, section 20)."""
    tags = file.tag_v2
    curve = _tiff_curve(tags)
    if file.mode not in ("RGB", "RGBA") or curve == ():
        return NamedColours(remarks=() if curve is None else (TIFF_CURVE_UNKNOWN,))
    points = _SRGB
    if _PRIMARIES in tags:
        given = (*map(float, tags[_PRIMARIES]), *map(float, tags.get(_WHITE_POINT, _SRGB[6:])))
        points = given if len(given) == 8 else _SRGB
    if curve is None and _is_srgb(points):
        return NamedColours()
    return _of_points(points, srgb_curve() if curve is None else curve)


def _tiff_curve(tags: Mapping[int, Any]) -> tuple[float, ...] | None:
    """The light of equally spaced values, as TransferFunction says it; None for a screen's, () where it is not usable.

    One table for all colours, or equal ones; those of TransferRange are not followed.
    """
    table = np.atleast_1d(np.asarray(tags.get(_TRANSFER, ()), float)) / 65535
    if not len(table):
        return None
    sizes = [2**bits for bits in (1, 2, 4, 8, 16)]
    levels = next((size for size in sizes if len(table) in (size, 3 * size)), 0)
    if (
        not levels
        or _TRANSFER_RANGE in tags
        or not np.array_equal(table.reshape(-1, levels), table[None, :levels].repeat(len(table) // levels, 0))
    ):
        return ()
    places, own = np.linspace(0, 1, len(srgb_curve())), np.linspace(0, 1, levels)
    curve = np.interp(places, own, table[:levels])
    if np.abs(curve - np.array(srgb_curve())).max() <= _SAME_LIGHT:
        return None
    return tuple(curve.tolist()) if (np.diff(curve) >= 0).all() and curve[-1] > 0.5 else ()


def _of_points(points: tuple[float, ...], curve: tuple[float, ...]) -> NamedColours:
    """x and y of red, green, blue and white, and a curve."""
    red, green, blue, white = ((points[place], points[place + 1]) for place in (0, 2, 4, 6))
    return _of_space(ColourSpace(red=red, green=green, blue=blue, white=white, curve=curve), ODD_PRIMARIES)


def _is_srgb(points: tuple[float, ...]) -> bool:
    return all(abs(point - own) <= _SAME_POINT for point, own in zip(points, _SRGB, strict=True))


def _gamma(file: Image.Image) -> float | None:
    """The exponent of a PNG where a screen's differs from it."""
    gamma = file.info.get("gamma")
    if gamma is None:
        return None
    low, high = _PLAUSIBLE_GAMMA
    return gamma if low <= gamma <= high and abs(gamma * SCREEN_GAMMA - 1) > _SAME_GAMMA else None


def _cicp(data: bytes) -> tuple[int, int, int, int] | None:
    """Primaries, transfer, matrix and whether the range is full, of the PNG's cICP chunk before its pixels."""
    for name, content in _chunks(data):
        if name == b"IDAT":
            return None
        if name == b"cICP" and len(content) == 4:
            return content[0], content[1], content[2], content[3]
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = _PNG_HEADER
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length


def _says_adobe_rgb(file: Image.Image) -> bool:
    """Whether the EXIF names Adobe RGB: as R03 (DCF 2.0), or by the 2 that some cameras give as colour space."""
    try:
        exif = file.getexif()
        name = exif.get_ifd(ExifTags.IFD.Interop).get(1)
        return str(name).rstrip("\0") == "R03" or exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) == 2
    except MemoryError:
        raise  # a fault of the machine, not of the file
    except Exception:  # whatever Pillow raises for a damaged EXIF
        return False
