"""The numbers by which an AV1 stream names its colours: the sequence header at its start (AV1 specification, 5.5)."""

_SEQUENCE_HEADER = 1
_MOST_BYTES = 4096  # the header comes first, and has some dozen bytes


def stream_colours(stream: bytes) -> tuple[int, int] | None:
    """Primaries and transfer, as H.273 numbers them; None where the stream names none or has no such header here."""
    stream, place = stream[:_MOST_BYTES], 0
    try:
        while place < len(stream):
            head = stream[place]
            kind, extended, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
            place += 1 + extended
            size, place = _leb128(stream, place) if sized else (len(stream) - place, place)
            if kind == _SEQUENCE_HEADER:
                return _colours(_Bits(stream[place : place + size]))
            place += size
    except IndexError:  # cut short, or something else
        pass
    return None


def _leb128(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it."""
    value = 0
    for index in range(8):
        value |= (data[place + index] & 127) << 7 * index
        if data[place + index] < 128:
            return value, place + index + 1
    raise IndexError


class _Bits:
    """Reads bits, highest first. Raises IndexError behind the end."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._bits >> self._left & (1 << count) - 1

    def zeros(self) -> int:
        """How many bits of 0 come before one of 1, which is taken too."""
        count = 0
        while not self.take(1):
            count += 1
        return count


def _colours(bits: _Bits) -> tuple[int, int] | None:
    profile, _, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _skip_timing_and_points(bits)
    sizes = bits.take(4) + 1, bits.take(4) + 1
    bits.take(sum(sizes))
    if not reduced and bits.take(1):  # numbers of frames
        bits.take(7)
    bits.take(3)
    if not reduced:
        _skip_tools(bits)
    bits.take(3)
    deep = bits.take(1)
    if profile == 2 and deep:
        bits.take(1)
    if profile != 1:
        bits.take(1)  # grey
    return (bits.take(8), bits.take(8)) if bits.take(1) else None


def _skip_timing_and_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.take(bits.zeros())
        if bits.take(1):  # the decoder's model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    shown_later = bits.take(1)
    for _ in range(bits.take(5) + 1):  # operating points
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if shown_later and bits.take(1):
            bits.take(4)


def _skip_tools(bits: _Bits) -> None:
    bits.take(4)
    ordered = bits.take(1)
    if ordered:
        bits.take(2)
    screen = 2 if bits.take(1) else bits.take(1)
    if screen and not bits.take(1):
        bits.take(1)
    if ordered:
        bits.take(3)
