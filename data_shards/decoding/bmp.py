"""What the header of a BMP of version 4 or 5 says about its colours (BITMAPV4HEADER, BITMAPV5HEADER)."""

import struct

_FILE_HEADER = 14
_VERSION_4, _VERSION_5 = 108, 124  # bytes of the header
_KIND, _POINTS, _PROFILE = 56, 60, 112  # places in it
_CALIBRATED, _LINKED, _EMBEDDED = 0, 0x4C494E4B, 0x4D424544
_SRGB_POINTS = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_SRGB_GAMMAS = (2.2, 1 / 2.2)  # some programs write the inverse
_SAME_POINT, _SAME_GAMMA = 0.005, 0.05


def bmp_profile(data: bytes) -> bytes | None:
    """The ICC profile in a BMP, which Pillow does not read; None where there is none."""
    if _kind(data) != (_VERSION_5, _EMBEDDED):
        return None
    place, length = struct.unpack_from("<II", data.ljust(200, b"\0"), _FILE_HEADER + _PROFILE)
    return data[_FILE_HEADER + place : _FILE_HEADER + place + length] or None


def names_other_colours(data: bytes) -> bool:
    """Whether a BMP names a profile in another file, or end points and gammas that are not a screen's."""
    size, kind = _kind(data)
    if size not in (_VERSION_4, _VERSION_5):
        return False
    if kind == _CALIBRATED:
        numbers = struct.unpack_from("<9i3I", data.ljust(200, b"\0"), _FILE_HEADER + _POINTS)
        return not (_are_srgbs(numbers[:9]) and all(map(_is_srgbs, numbers[9:])))
    return kind == _LINKED and size == _VERSION_5


def _kind(data: bytes) -> tuple[int, int]:
    """Bytes of the header, and the kind of its colours; -1 where it has none."""
    if len(data) < _FILE_HEADER + _KIND + 4:
        return 0, -1
    size, kind = struct.unpack_from(f"<I{_KIND - 4}xI", data, _FILE_HEADER)
    return size, kind


def _are_srgbs(numbers: tuple[int, ...]) -> bool:
    """Whether X, Y, Z of red, green and blue are those of sRGB, or left at 0."""
    if not any(numbers):
        return True
    totals = [sum(numbers[place : place + 3]) for place in (0, 3, 6)]
    if not all(totals):
        return False
    points = (numbers[3 * colour + axis] / totals[colour] for colour in range(3) for axis in range(2))
    return all(abs(point - own) <= _SAME_POINT for point, own in zip(points, _SRGB_POINTS, strict=True))


def _is_srgbs(gamma: int) -> bool:
    """Whether a gamma, in 1/65536, is a screen's, or left at 0."""
    return not gamma or any(abs(gamma / 2**16 / own - 1) <= _SAME_GAMMA for own in _SRGB_GAMMAS)
