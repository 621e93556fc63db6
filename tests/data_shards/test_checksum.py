"""The checksums in the index: they find damage, and those of old shards are still read."""

import json
import shutil

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from data_shards.checksum import CHECKSUMS
from data_shards.inspect.verify import verify
from data_shards.io.address import Address
from data_shards.io.disk import sha256_of_file
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream


def weighted_sum_by_hand(data: bytes) -> int:
    data += bytes(-len(data) % 8) or (b"" if data else bytes(8))
    total = 0
    for place in range(0, len(data), 8):
        weight = ((place // 8 + 1) * 0x9E3779B97F4A7C15) % 2**64 | 1
        total += int.from_bytes(data[place : place + 8], "little") * weight
    return total % 2**64


@given(st.binary(max_size=100))
def test_the_checksum_of_format_1_is_the_weighted_sum_of_words(data):
    assert CHECKSUMS[1](data) == weighted_sum_by_hand(data)


def test_the_checksum_of_format_2_is_xxh3():
    assert CHECKSUMS[2](b"abc") == 0x78AF5F94892F3950  # published for XXH3_64bits("abc")
    assert CHECKSUMS[2](b"abc") == xxhash.xxh3_64(b"abc").intdigest()


@pytest.mark.parametrize("number", CHECKSUMS)
@given(data=st.binary(min_size=1, max_size=64), draws=st.data())
def test_every_flipped_bit_is_seen(number, data, draws):
    bit = draws.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert CHECKSUMS[number](bytes(flipped)) != CHECKSUMS[number](data)


@pytest.mark.parametrize("number", CHECKSUMS)
def test_swapped_blocks_are_seen(number):
    data = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    assert CHECKSUMS[number](data[2048:] + data[:2048]) != CHECKSUMS[number](data)


@pytest.fixture
def old_shards(uneven_shards, tmp_path):
    """The same shards as format 1 wrote them: other checksums, and no format number in the indexes."""
    folder = shutil.copytree(uneven_shards, tmp_path / "old")
    record = json.loads((folder / "manifest.json").read_text())
    for shard in record["shards"]:
        path = folder / shard["name"].replace(".tar", ".json")
        index = json.loads(path.read_text())
        assert index.pop("format") == 2
        tar = (folder / shard["name"]).read_bytes()
        members = index["members"]
        members["checksum"] = [
            weighted_sum_by_hand(tar[offset + 128 : offset + size])
            for offset, size in zip(members["offset"], members["size"], strict=True)
        ]
        path.write_text(json.dumps(index))
        shard["index_sha256"] = sha256_of_file(path)
    record["format"] = 1
    (folder / "manifest.json").write_text(json.dumps(record))
    return folder


def test_old_shards_have_the_hash_of_new_ones_and_give_the_same_stream(old_shards, uneven_shards):
    assert Manifest.load(old_shards).hash == Manifest.load(uneven_shards).hash
    streams = [ShardStream(folder, split="train", global_batch=32) for folder in (old_shards, uneven_shards)]
    for old, new in zip(*streams, strict=True):
        assert np.array_equal(old.image, new.image)
        assert np.array_equal(old.index, new.index)


def test_old_shards_are_verified_with_their_own_checksum(old_shards):
    manifest = Manifest.load(old_shards)
    assert all(not faults for _, faults in verify(manifest, Address(old_shards), processes=1))


def test_damage_to_old_shards_is_found(old_shards):
    with (old_shards / "train-000000.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"damage")
    with pytest.raises(InputError, match="do not have their checksum"):
        list(ShardStream(old_shards, split="train", global_batch=32))


@pytest.mark.parametrize("name", ["manifest.json", "train-000000.json"])
def test_a_format_of_a_later_version_is_refused(uneven_shards, tmp_path, name):
    folder = shutil.copytree(uneven_shards, tmp_path / "later")
    for path in (folder / name, folder / "manifest.json"):
        record = json.loads(path.read_text())
        if path.name == name:
            record["format"] = 3
        else:
            record["shards"][0]["index_sha256"] = sha256_of_file(folder / name)
        path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="format 3"):
        list(ShardStream(folder, split="train", global_batch=32))


def test_what_is_wrong_in_a_manifest_is_told_with_its_file(uneven_shards, tmp_path):
    shards = shutil.copytree(uneven_shards, tmp_path / "shards")
    content = json.loads((shards / "manifest.json").read_text())
    content["shards"][0]["sha256"] = "not a digest"
    (shards / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest\.json: .*sha256 must be"):
        Manifest.load(shards)
