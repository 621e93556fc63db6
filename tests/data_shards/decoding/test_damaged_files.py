"""Damaged files are unreadable, and nothing else: no other exception, no end of the process, no endless work."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from support.image_kinds import KINDS

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import decode
from data_shards.decoding.formats import extensions
from data_shards.io.errors import MachineFault

SECONDS = 10  # of processor time for one file; they take milliseconds


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one of the faults that disks, networks and programs make."""
    content = bytearray(data)
    where = int(rng.integers(0, len(content)))
    how_many = int(rng.integers(1, 65))
    fault = rng.integers(0, 7)
    if fault == 0:
        del content[where:]
    elif fault == 1:
        content[where : where + how_many] = rng.bytes(how_many)
    elif fault == 2:
        content[where : where + how_many] = bytes(how_many)
    elif fault == 3:
        del content[where : where + how_many]
    elif fault == 4:
        content[where:where] = rng.bytes(how_many)
    elif fault == 5:
        for place in rng.integers(0, len(content), 8):
            content[place] ^= 1 << rng.integers(0, 8)
    else:
        head = rng.integers(0, min(64, len(content)), 4)  # what the sizes are in
        for place in head:
            content[place] = 255
    return bytes(content)


def decode_damaged(count: int, seed: int) -> tuple[int, int]:
    """How many of `count` damaged files were unreadable, and how many could be decoded all the same."""
    rng = np.random.default_rng(seed)
    unreadable = decoded = 0
    reasons = []
    for number in range(count):
        data = damaged(KINDS[number % len(KINDS)].data, rng)
        start = time.process_time()
        try:
            image = decode(data, channels=1 + 2 * (number % 2), background="#ffffff").image
        except BadImage as error:
            unreadable += 1
            reasons.append(str(error))
        else:
            decoded += 1
            assert image.dtype == np.uint8
            assert image.ndim == 3
        assert time.process_time() - start < SECONDS, f"file {number} of seed {seed}"
    # A reason is recorded in one line, and is the same in every build: no address of an object.
    assert [reason for reason in reasons if " at 0x" in reason or "\n" in reason] == []
    return unreadable, decoded


def test_damaged_files_are_unreadable():
    unreadable, decoded = decode_damaged(1000, seed=0)
    assert unreadable > 200
    assert unreadable + decoded == 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_damaged_files_are_unreadable():
    unreadable, decoded = decode_damaged(10_000, seed=1)
    assert unreadable > 2000
    assert unreadable + decoded == 10_000


@pytest.mark.skipif("heic" in extensions(), reason="pillow-heif is installed")
def test_a_photograph_that_takes_a_plugin_names_it_whatever_it_is_called():
    heic = (24).to_bytes(4, "big") + b"ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(BadImage, match="needs the package pillow-heif"):
        decode(heic, channels=3, background="#ffffff")


def test_memory_that_runs_out_while_a_photograph_is_turned_is_no_fault_of_its_data(monkeypatch):
    def short_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", short_of_memory)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG")
    with pytest.raises(MachineFault):
        decode(buffer.getvalue(), channels=3, background="#ffffff")
