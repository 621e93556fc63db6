"""Colour spaces by their primaries, white and brightness curve, as files name them that hold no ICC profile.

The numbers of ITU-T H.273, which PNG (cICP), AVIF and HEIC (nclx) use, and an ICC profile of any such space.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float]
"""x and y of CIE 1931."""

_D65: Point = (0.3127, 0.3290)
_C: Point = (0.310, 0.316)
_DCI: Point = (0.314, 0.351)
# H.273, table 2: red, green, blue, white.
_PRIMARIES: dict[int, tuple[Point, Point, Point, Point]] = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),  # BT.709, sRGB
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),  # BT.470 M
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),  # BT.470 BG
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # BT.601
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # SMPTE 240M
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),  # film
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),  # cinemas
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),  # EBU 3213
}
_UNSPECIFIED = 2
# Curves of cameras for video (1, 6, 7, 11, 14, 15) are shown on screens as if they were sRGB's (13); so is a gamma of
# 2.2 (4).
_AS_SRGB = {1, 4, 6, 7, 11, 13, 14, 15, _UNSPECIFIED}
_PAL, _LINEAR, _PQ, _HLG = 5, 8, 16, 18
_WHITE_NITS = 203  # of white paper in pictures of high dynamic range (BT.2408)
_ENTRIES = 4096
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of ICC profiles
# Bradford's cone responses, by which profiles adapt one white to another (ICC.1:2022, annex E).
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, kw_only=True)
class ColourSpace:
    """RGB of some primaries."""

    red: Point
    green: Point
    blue: Point
    white: Point
    curve: tuple[float, ...]
    """The light, 0 to 1, of equally spaced values from 0 to 1; or one number, the exponent of the curve."""
    high_dynamic_range: bool = False
    """Whether what is brighter than white paper is cut off by the curve."""

    def to_xyz(self) -> Array | None:
        """Light in the three primaries to XYZ under D50, 3 x 3; None where they do not make up the white."""
        points = np.array([self.red, self.green, self.blue, self.white])
        if (points[:, 1] <= 0).any() or not np.isfinite(points).all():
            return None
        xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(1)) / points[:, 1]])  # 3 x 4
        if abs(np.linalg.det(xyz[:, :3])) < 1e-6:
            return None
        amounts = np.linalg.solve(xyz[:, :3], xyz[:, 3])
        cones = _BRADFORD @ xyz[:, 3]
        if (amounts <= 0).any() or (cones <= 0).any():
            return None
        adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD)
        return adaptation @ (xyz[:, :3] * amounts)

    def profile(self) -> bytes | None:
        """An ICC profile of the space; None where the primaries do not make up the white."""
        matrix = self.to_xyz()
        if matrix is None or np.abs(matrix).max() >= 2**15:
            return None
        if len(self.curve) == 1:
            curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(self.curve[0] * 256))
        else:
            levels = np.rint(np.array(self.curve) * 65535).astype(">u2")
            curve = b"curv\0\0\0\0" + struct.pack(">I", len(levels)) + levels.tobytes()
        colorants = {tag: _xyz(column) for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
        return _icc({b"wtpt": _xyz(_D50), **colorants, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def srgb_curve() -> tuple[float, ...]:
    """The curve of sRGB (IEC 61966-2-1)."""
    value = np.linspace(0, 1, _ENTRIES)
    return tuple(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).tolist())


def numbered_space(primaries: int, transfer: int) -> ColourSpace | None:
    """The space of two numbers of H.273; None where one is not known here. Unspecified means sRGB's."""
    points = _PRIMARIES.get(1 if primaries == _UNSPECIFIED else primaries)
    curve = _curve(transfer)
    if points is None or curve is None:
        return None
    red, green, blue, white = points
    return ColourSpace(
        red=red, green=green, blue=blue, white=white, curve=curve, high_dynamic_range=transfer in (_PQ, _HLG)
    )


def _curve(transfer: int) -> tuple[float, ...] | None:
    if transfer in _AS_SRGB:
        return srgb_curve()
    if transfer in (_LINEAR, _PAL):
        return (1.0,) if transfer == _LINEAR else (2.8,)
    value = np.linspace(0, 1, _ENTRIES)
    if transfer == _PQ:  # SMPTE ST 2084, in nits
        root = value ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    elif transfer == _HLG:  # BT.2100, on a screen of 1,000 nits, whose gamma is 1.2; of grey
        scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        nits = 1000 * scene**1.2
    else:
        return None
    return tuple(np.minimum(nits / _WHITE_NITS, 1).tolist())


def _xyz(values: Array) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _icc(tags: dict[bytes, bytes]) -> bytes:
    """A profile of version 2 for RGB on a screen (ICC.1:2001-04, section 6)."""
    name = b"named by a file\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        **tags,
    }
    place = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", place + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", place + len(content), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + table + content
