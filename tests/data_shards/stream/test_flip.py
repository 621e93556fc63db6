"""Horizontal flips are decided by image, epoch and seed, and by nothing else."""

import numpy as np
import pytest
import torch
from support.shard_cases import ArraySource

from data_shards.stream.stream import ShardStream


def images_of(shards, *, epochs=1, **options):
    """Image by (epoch, index)."""
    stream = ShardStream(shards, split="train", global_batch=32, **options)
    batches = [batch for _ in range(epochs) for batch in stream]
    stream.close()
    return {
        (batch.epoch, index): image
        for batch in batches
        for index, image in zip(batch.index.tolist(), batch.image, strict=True)
    }


def turned(plain, mirrored):
    """Which images are mirrored; each is that or as it was."""
    found = {}
    for key, image in mirrored.items():
        assert torch.equal(image, plain[key]) or torch.equal(image, plain[key].flip(-1))
        found[key] = torch.equal(image, plain[key].flip(-1))
    return found


def test_half_of_the_images_are_mirrored_and_others_in_the_next_epoch(uneven_shards):
    found = turned(images_of(uneven_shards, epochs=4), images_of(uneven_shards, epochs=4, flip=True))
    first, second = ([found[epoch, index] for index in range(211)] for epoch in (0, 1))
    # Of 4 x 211 fair bits within five standard deviations; of two epochs half agree.
    assert abs(sum(found.values()) - 422) < 5 * 0.5 * np.sqrt(844)
    assert abs(np.equal(first, second).sum() - 105.5) < 5 * 0.5 * np.sqrt(211)


def test_another_seed_mirrors_others(uneven_shards):
    plain = images_of(uneven_shards)
    one, other = (turned(plain, images_of(uneven_shards, flip=True, seed=seed)) for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_and_workers_mirror_the_same_images(uneven_shards, world_size, workers):
    whole, parts = images_of(uneven_shards, flip=True), {}
    for rank in range(world_size):
        parts |= images_of(uneven_shards, flip=True, rank=rank, world_size=world_size, workers=workers)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


@pytest.mark.parametrize("position", [77, 211 + 5])
def test_a_resumed_stream_mirrors_the_same_images(uneven_shards, position):
    whole = images_of(uneven_shards, flip=True, epochs=2)
    rest = images_of(uneven_shards, flip=True, position=position)
    assert all(torch.equal(whole[key], image) for key, image in rest.items())


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_every_encoding_is_mirrored_left_to_right(tmp_path, encoding):
    from data_shards.build.builder import BuildOptions, build
    from data_shards.pixels import Pixels

    source = ArraySource({"train": 40}, shape=(3, 5, 3))
    build(source, Pixels(channels=3, height=3, width=5, encoding=encoding), tmp_path, BuildOptions(shard_images=40))
    for (_, index), image in images_of(tmp_path, flip=True).items():
        true = source.images["train"][index]
        assert any(np.array_equal(image.numpy().transpose(1, 2, 0), x) for x in (true, true[:, ::-1]))


def test_there_are_no_flips_unless_they_are_asked_for(uneven_shards, uneven_source):
    source = torch.from_numpy(uneven_source.good("train").transpose(0, 3, 1, 2).copy())
    assert all(torch.equal(image, source[index]) for (_, index), image in images_of(uneven_shards).items())
