"""The numbers by which an AVIF or HEIC file names its colours, in boxes (ISO 23008-12) or in its AV1 stream."""

import struct
from collections.abc import Iterator

from data_shards.decoding.av1 import stream_colours


def nclx(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer, as H.273 numbers them, of the primary item; None where the file names none.

    By its nclx box; without one, as decoders do it, by its AV1 stream, or that of its first tile.
    """
    try:
        meta = _first(data, b"meta")[4:]  # after version and flags, as in pitm and ipma
        primary = _primary(_first(meta, b"pitm"))
        own = _properties(meta, primary)
        numbers = next((box for name, box in own if name == b"colr" and box[:4] == b"nclx"), None)
        if numbers is not None:
            return struct.unpack_from(">HH", numbers, 4)
        streamed = primary if _is_stream(own) else _first_tile(meta, primary)
        return stream_colours(_content(data, meta, streamed)) if _is_stream(_properties(meta, streamed)) else None
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


def _properties(meta: bytes, item: int) -> list[tuple[bytes, bytes]]:
    """Name and content of an item's properties."""
    properties = _first(meta, b"iprp")
    boxes = list(_boxes(_first(properties, b"ipco")))
    return [boxes[place - 1] for place in _places(_first(properties, b"ipma"), item) if place]


def _places(box: bytes, item: int) -> list[int]:
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


def _is_stream(properties: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"av1C" for name, _ in properties)


def _first_tile(meta: bytes, item: int) -> int:
    """The first of the items that an image in tiles is made of."""
    references = _first(meta, b"iref")
    number = ">HHH" if references[:1] == b"\0" else ">IHI"
    for name, box in _boxes(references[4:]):
        if name == b"dimg":
            whole, _, tile = struct.unpack_from(number, box)
            if whole == item:
                return int(tile)
    raise LookupError(item)


def _content(data: bytes, meta: bytes, item: int) -> bytes:
    """The first extent of an item."""
    box = _first(meta, b"iloc")
    version, sizes = box[0], (box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15 if box[0] else 0)
    place = 6

    def take(size: int) -> int:
        nonlocal place
        if place + size > len(box):
            raise LookupError(item)
        place += size
        return int.from_bytes(box[place - size : place], "big")

    for _ in range(take(2 if version < 2 else 4)):
        number = take(2 if version < 2 else 4)
        within = take(2) & 15 if version else 0
        take(2)
        base, found = take(sizes[2]), []
        for _ in range(take(2)):
            take(sizes[3])
            start, length = take(sizes[0]), take(sizes[1])
            found.append((base + start, length))
        if number == item and found:
            start, length = found[0]
            whole = (data, _first(meta, b"idat"))[within]
            return whole[start : start + length] if length else whole[start:]
    raise LookupError(item)
