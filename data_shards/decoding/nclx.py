"""The numbers by which an AVIF or HEIC file names its colours: the nclx box of its first image (ISO 23008-12)."""

import struct
from collections.abc import Iterator


def nclx(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer, as H.273 numbers them, of the primary item; None where the file names none."""
    try:
        meta = _first(data, b"meta")[4:]  # after version and flags, as in pitm and ipma
        properties = _first(meta, b"iprp")
        boxes = [(name, content) for name, content in _boxes(_first(properties, b"ipco"))]
        own = _properties(_first(properties, b"ipma"), _primary(_first(meta, b"pitm")))
        found = [content for name, content in (boxes[place - 1] for place in own if place) if name == b"colr"]
        numbers = next((content for content in found if content[:4] == b"nclx"), None)
        return None if numbers is None else struct.unpack_from(">HH", numbers, 4)
    except (LookupError, struct.error):  # a file of another structure, or damaged
        return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box, side by side."""
    place = 0
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        header = 8
        if size == 1:
            (size,), header = struct.unpack_from(">Q", data, place + 8), 16
        end = place + size if size else len(data)
        if end < place + header:
            return
        yield name, data[place + header : end]
        place = end


def _first(data: bytes, name: bytes) -> bytes:
    return next((content for found, content in _boxes(data) if found == name), b"")


def _primary(box: bytes) -> int:
    (item,) = struct.unpack_from(">H" if box[:1] == b"\0" else ">I", box, 4)
    return int(item)


def _properties(box: bytes, item: int) -> list[int]:
    """The places, from 1, of an item's properties."""
    version, wide = box[0], box[3] & 1
    (entries,), place = struct.unpack_from(">I", box, 4), 8
    for _ in range(entries):
        number, count = struct.unpack_from(">HB" if version == 0 else ">IB", box, place)
        place += 3 if version == 0 else 5
        places = struct.unpack_from(f">{count}{'H' if wide else 'B'}", box, place)
        place += count * (2 if wide else 1)
        if number == item:
            return [each & (0x7FFF if wide else 0x7F) for each in places]  # without the bit that says "essential"
    return []
