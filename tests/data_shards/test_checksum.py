"""The sample checksum against arbitrary-precision integers, and that it sees damage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards import checksum


def by_hand(data: bytes) -> int:
    data += bytes(-len(data) % 8) or (b"" if data else bytes(8))
    total = 0
    for place in range(0, len(data), 8):
        weight = ((place // 8 + 1) * 0x9E3779B97F4A7C15) % 2**64 | 1
        total += int.from_bytes(data[place : place + 8], "little") * weight
    return total % 2**64


@given(st.binary(max_size=100))
def test_it_is_the_weighted_sum_of_words(data):
    assert checksum.of_bytes(data) == by_hand(data)


def test_rows_are_summed_each_for_itself():
    rows = np.random.default_rng(0).integers(0, 256, (5, 24), dtype=np.uint8)
    assert checksum.of_rows(rows).tolist() == [checksum.of_bytes(row.tobytes()) for row in rows]


@given(st.binary(min_size=1, max_size=64), st.data())
def test_every_flipped_bit_is_seen(data, draws):
    bit = draws.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert checksum.of_bytes(bytes(flipped)) != checksum.of_bytes(data)


def test_swapped_blocks_are_seen():
    data = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    assert checksum.of_bytes(data[2048:] + data[:2048]) != checksum.of_bytes(data)


@pytest.mark.parametrize(("size", "padded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_sizes_are_rounded_up_to_words(size, padded):
    assert checksum.padded(size) == padded
