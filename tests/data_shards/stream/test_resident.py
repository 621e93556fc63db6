"""Images that lie in the memory of a device: the batches of the stream, image for image."""

import shutil

import pytest
import torch

from data_shards.io.errors import InputError
from data_shards.stream.resident import ResidentStream
from data_shards.stream.stream import ShardStream

CPU = torch.device("cpu")


def take(stream, epochs):
    return [batch for _ in range(epochs) for batch in stream]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.start, ours.count, ours.epoch) == (theirs.start, theirs.count, theirs.epoch)
        assert ours.substituted == theirs.substituted
        assert torch.equal(ours.index, theirs.index)
        assert torch.equal(ours.image, theirs.image)


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
@pytest.mark.parametrize(("flip", "position"), [(False, 0), (True, 130)])
def test_batches_are_those_of_the_shards(digits_shards, rank, world_size, flip, position):
    arguments = {"split": "train", "global_batch": 50, "rank": rank, "world_size": world_size}
    arguments |= {"seed": 3, "position": position, "flip": flip}
    assert_equal(
        take(ResidentStream(digits_shards, device=CPU, **arguments), 2),
        take(ShardStream(digits_shards, **arguments), 2),
    )


def test_unreadable_images_are_replaced_and_counted_as_in_the_stream(digits_shards, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(digits_shards, shards)
    tar = sorted(shards.glob("train-*.tar"))[0]
    content = bytearray(tar.read_bytes())
    content[content.index(b"\x93NUMPY") + 128 + 300] ^= 255  # a pixel of the first image
    tar.write_bytes(content)
    arguments = {"split": "train", "global_batch": 50, "max_substitutes": 5}
    expected = take(ShardStream(shards, **arguments), 2)
    assert sum(batch.substituted for batch in expected) == 2
    assert_equal(take(ResidentStream(shards, device=CPU, **arguments), 2), expected)
    with pytest.raises(InputError, match="cannot be read \\(1 such images where 0 are allowed"):
        take(ResidentStream(shards, device=CPU, **(arguments | {"max_substitutes": 0})), 1)
