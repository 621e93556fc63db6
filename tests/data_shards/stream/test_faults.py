"""Damaged shards: the same substitutes on all ranks, up to a limit, then a clear stop."""

import hashlib
import json
import shutil

import pytest
import torch
from support.shard_cases import ArraySource, build_arrays

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream


@pytest.fixture
def shards(uneven_shards, tmp_path):
    """A copy to damage: shards of 20, 1, 20, 20, 20, 20, ... images."""
    return shutil.copytree(uneven_shards, tmp_path / "shards")


def flip_a_pixel(shards, shard: str, row: int) -> None:
    index = json.loads((shards / f"{shard}.json").read_text())["members"]
    with (shards / f"{shard}.tar").open("r+b") as file:
        file.seek(index["offset"][row] + index["size"][row] - 1)
        last = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([last[0] ^ 1]))


def epoch(shards, world_size=1, **options):
    """Batches of all ranks of one epoch, step after step."""
    streams = [
        ShardStream(shards, split="train", global_batch=32, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    batches = [list(stream) for stream in streams]
    for stream in streams:
        stream.close()
    return [batch for step in zip(*batches, strict=True) for batch in step]


def test_one_flipped_bit_stops_the_stream_and_names_the_member(shards):
    flip_a_pixel(shards, "train-000000", 7)
    with pytest.raises(InputError, match=r"train-000000\.tar, train_00007\.npy: the bytes do not have their checksum"):
        epoch(shards)


def test_a_truncated_shard_stops_the_stream_and_is_named(shards):
    tar = shards / "train-000002.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"train-000002\.tar: 5000 bytes where the manifest says"):
        epoch(shards)


def test_a_missing_shard_stops_the_stream_and_is_named(shards):
    (shards / "train-000004.tar").unlink()
    with pytest.raises(InputError, match=r"train-000004\.tar: cannot be opened"):
        epoch(shards)


def test_an_index_that_was_tampered_with_stops_the_stream(shards):
    path = shards / "train-000000.json"
    path.write_text(path.read_text().replace('"npy"', '"pickle"'))
    with pytest.raises(InputError, match="its index does not have the sha256"):
        epoch(shards)


@pytest.mark.parametrize("extension", ["pickle", "pyd", "pth"])
def test_members_that_run_code_are_refused_even_with_a_fitting_sha256(shards, extension):
    path = shards / "train-000000.json"
    path.write_text(path.read_text().replace('"npy"', f'"{extension}"'))
    _accept(shards, "train-000000.tar", "index_sha256", path)
    with pytest.raises(InputError, match=f"members .{extension} are refused"):
        epoch(shards)


def _accept(shards, shard, field, path):
    """Makes the manifest agree with a changed file, as someone malicious would."""
    record = json.loads((shards / "manifest.json").read_text())
    entry = next(entry for entry in record["shards"] if entry["name"] == shard)
    entry[field] = hashlib.sha256(path.read_bytes()).hexdigest()
    (shards / "manifest.json").write_text(json.dumps(record))


def test_a_manifest_that_was_tampered_with_is_refused(shards):
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace('"count": 20', '"count": 19', 1))
    with pytest.raises(InputError, match="its hash does not fit its content"):
        Manifest.load(shards)


def test_a_shard_name_that_leaves_the_folder_is_refused(shards):
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace("train-000000.tar", "../train-000000.tar"))
    with pytest.raises(InputError, match="shard name"):
        Manifest.load(shards)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_ranks_and_workers_substitute_the_same_images(shards, world_size, workers):
    flip_a_pixel(shards, "train-000000", 7)
    (shards / "train-000004.tar").unlink()
    whole = epoch(shards, max_substitutes=21)
    shared = epoch(shards, world_size=world_size, workers=workers, max_substitutes=21)
    assert torch.equal(torch.cat([b.index for b in shared]), torch.cat([b.index for b in whole]))
    assert torch.equal(torch.cat([b.image for b in shared]), torch.cat([b.image for b in whole]))
    assert sum(b.substituted for b in shared) == 21


def test_a_substitute_is_a_good_image_under_its_own_index(shards, uneven_source):
    (shards / "train-000004.tar").unlink()
    source = torch.from_numpy(uneven_source.good("train").transpose(0, 3, 1, 2).copy())
    seen = set()
    for batch in epoch(shards, max_substitutes=20):
        assert torch.equal(batch.image, source[batch.index])
        seen.update(batch.index.tolist())
    lost = set(range(211)) - seen
    assert len(lost) == 20  # all of the missing shard and no other


def test_one_more_than_the_limit_is_a_stop_that_names_the_limit(shards):
    (shards / "train-000004.tar").unlink()
    stream = ShardStream(shards, split="train", global_batch=211, max_substitutes=19)
    with pytest.raises(InputError, match=r"train-000004\.tar.*\(20 such images where 19 are allowed\)"):
        list(stream)


def test_where_nothing_is_left_to_substitute_the_stream_stops(shards):
    for tar in shards.glob("train-*.tar"):
        tar.unlink()
    with pytest.raises(InputError, match="100 replacements cannot be read either"):
        epoch(shards, max_substitutes=1000)


def test_a_shard_that_vanishes_in_the_middle_of_an_epoch_is_reported(tmp_path):
    build_arrays(tmp_path, ArraySource({"train": 400}), shard_images=10, window=1)
    stream = ShardStream(tmp_path, split="train", global_batch=10)
    batches = iter(stream)
    next(batches)
    for tar in tmp_path.glob("train-*.tar"):
        tar.unlink()
    with pytest.raises(InputError, match="cannot be opened"):
        list(batches)


def test_an_encoded_member_that_does_not_decode_is_reported(celeba, tmp_path):
    from data_shards.build.builder import BuildOptions, build
    from data_shards.pixels import Pixels
    from data_shards.sources.celeba import CelebASource

    pixels = Pixels(channels=3, height=16, width=16, crop=140, resize=True, encoding="original")
    build(CelebASource(celeba), pixels, tmp_path, BuildOptions(shard_images=100))
    index = json.loads((tmp_path / "valid-000000.json").read_text())["members"]
    with (tmp_path / "valid-000000.tar").open("r+b") as file:
        file.seek(index["offset"][3] + 200)
        file.write(bytes(100))
    with pytest.raises(InputError, match=r"000244\.jpg"):
        list(ShardStream(tmp_path, split="valid", global_batch=8))
