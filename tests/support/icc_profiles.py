"""Small ICC profiles of version 2, written by hand as Pillow can only make those of sRGB, Lab and XYZ."""

import struct


def _s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_s15, values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def _profile(kind: bytes, colours: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"made by hand\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(0.9642, 1.0, 0.8249),
        **tags,
    }
    place = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", place + len(content), len(data))
        content += data
    header = struct.pack(">I4sI4s4s4s", place + len(content), b"\0\0\0\0", 0x02400000, kind, colours, connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _s15(0.9642) + _s15(1.0) + _s15(0.8249)
    return header.ljust(128, b"\0") + table + content


def wide_rgb() -> bytes:
    """The primaries and the gamma of 2.2 of Adobe's RGB, whose green is outside of sRGB."""
    curves = {tag: _gamma(2.2) for tag in (b"rTRC", b"gTRC", b"bTRC")}
    primaries = {
        b"rXYZ": _xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": _xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": _xyz(0.14919, 0.06322, 0.74457),
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", primaries | curves)


def linear_grey() -> bytes:
    """Grey whose values are proportional to the light."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(1.0)})


def cmyk() -> bytes:
    """Inks whose full cyan is a dark blue, unlike the cyan of the simple formula."""
    # Lab, 8 bits, at the 16 corners with black ink varying fastest.
    paper, cyan, magenta, yellow = (255, 128, 128), (90, 128, 60), (120, 200, 120), (230, 120, 220)
    corners = []
    for corner in range(16):
        inks = [ink for bit, ink in ((8, cyan), (4, magenta), (2, yellow)) if corner & bit]
        lab = [sum(ink[axis] for ink in inks) // len(inks) for axis in range(3)] if inks else list(paper)
        corners += [10, 128, 128] if corner & 1 else lab
    identity = bytes(range(256))
    matrix = b"".join(_s15(float(row == column)) for row in range(3) for column in range(3))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + 4 * identity + bytes(corners) + 3 * identity
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})
