"""PNGs and TIFFs written by hand, as Pillow writes few of their kinds."""

import struct
import zlib

import numpy as np


def tiff(values: np.ndarray, photometric: int, orientation: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of any type of number, written by hand as Pillow writes few of them."""
    height, width, samples = (*values.shape, 1)[:3]
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = {
        256: (width,),
        257: (height,),
        258: (values.itemsize * 8,) * samples,
        259: (1,),
        262: (photometric,),
        273: (0,),
        274: (orientation,),
        277: (samples,),
        278: (height,),
        279: (len(data),),
        339: (kind,) * samples,
    }
    beside, after = b"", 8 + 2 + 12 * len(entries) + 4
    entries[273] = (after + sum(2 * len(numbers) for numbers in entries.values() if len(numbers) > 2),)
    directory = struct.pack("<H", len(entries))
    for tag, numbers in entries.items():
        if len(numbers) > 2:
            directory += struct.pack("<HHII", tag, 3, len(numbers), after + len(beside))
            beside += struct.pack(f"<{len(numbers)}H", *numbers)
        else:
            directory += struct.pack("<HHII", tag, 4, 1, numbers[0])
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + beside + data


def png(values: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of uint8 or uint16 values, H x W x C, with further chunks before its pixels."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, values.itemsize * 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))
