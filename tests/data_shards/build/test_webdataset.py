"""The shards are plain WebDataset tars."""

import subprocess
import tarfile

import numpy as np
import pytest
import webdataset

from data_shards.build.builder import BuildOptions, build
from data_shards.manifest import Manifest
from data_shards.pixels import Pixels
from data_shards.sources.celeba import CelebASource
from data_shards.stream.stream import ShardStream


def urls(shards, split):
    return [str(shards / shard.name) for shard in Manifest.load(shards).shards_of(split)]


def test_plain_webdataset_reads_raw_shards(uneven_shards, uneven_source):
    samples = list(webdataset.WebDataset(urls(uneven_shards, "train"), shardshuffle=False).decode())
    images = np.stack([sample["npy"] for sample in samples])
    assert np.array_equal(images, uneven_source.good("train").transpose(0, 3, 1, 2))
    assert samples[25]["__key__"] == "train_00044"
    assert samples[25]["cls"] == 4


@pytest.mark.parametrize(
    ("encoding", "extension"), [("raw", "npy"), ("png", "png"), ("jpeg", "jpg"), ("original", "jpg")]
)
def test_plain_webdataset_reads_what_the_stream_gives(celeba, tmp_path, encoding, extension):
    pixels = Pixels(channels=3, height=218, width=178, encoding=encoding)
    build(CelebASource(celeba), pixels, tmp_path, BuildOptions(shard_images=13))
    samples = list(webdataset.WebDataset(urls(tmp_path, "valid"), shardshuffle=False).decode("rgb8"))
    images = np.stack([sample[extension] for sample in samples])
    (batch,) = ShardStream(tmp_path, split="valid", global_batch=100, shuffle=False)
    ours = batch.image.numpy() if encoding == "raw" else batch.image.numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(images, ours)
    assert samples[0]["json"].keys() == {f"Attribute_{number}" for number in range(40)}


def test_the_tar_command_finds_the_archive_whole(uneven_shards):
    tar = uneven_shards / "train-000000.tar"
    done = subprocess.run(["tar", "-tf", str(tar)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["train_00000.npy", "train_00000.cls"]
    assert done.stderr == ""


def test_the_index_agrees_with_where_python_finds_the_members(uneven_shards):
    from data_shards.shard_index import parse_index

    for shard in Manifest.load(uneven_shards).shards:
        data = (uneven_shards / shard.index_name).read_bytes()
        index = parse_index(data, shard=shard.name, sha256=shard.index_sha256)
        with tarfile.open(uneven_shards / shard.name) as tar:
            members = {member.name: (member.offset_data, member.size) for member in tar if member.name.endswith("npy")}
        found = zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)
        assert dict(zip((f"{key}.npy" for key in index.keys), found, strict=True)) == members
