"""The stream gives each image once an epoch, in the same global batches, on any number of ranks and workers."""

import numpy as np
import pytest
import torch

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.order import EpochOrder
from data_shards.stream.stream import ShardStream

GLOBAL_BATCH = 32


def epoch_of(shards, **options):
    stream = ShardStream(shards, **{"split": "train", "global_batch": GLOBAL_BATCH, **options})
    batches = list(stream)
    stream.close()
    return batches


def order_of(shards, global_batch=GLOBAL_BATCH):
    """Sample indices of the first epoch's global batches, straight from the order."""
    order = EpochOrder(Manifest.load(shards), split="train", seed=0, epoch=0)(0, 211)
    return [order[start : start + global_batch].tolist() for start in range(0, 211, global_batch)]


@pytest.fixture(scope="module")
def expected(uneven_shards):
    return order_of(uneven_shards)


WORKERS_AND_BATCHES = [(0, 1), (0, 7), (0, 31), (0, 32), (0, 211), (0, 250), (1, 31), (4, 13)]


# A reader process takes a quarter of a second to start, and these start up to 28.
@pytest.mark.parametrize(
    ("world_size", "workers", "global_batch"),
    [
        pytest.param(world, workers, size, marks=[pytest.mark.slow] if workers == 4 and world in (2, 3, 5) else [])
        for world in (1, 2, 3, 5, 7)
        for workers, size in WORKERS_AND_BATCHES
    ],
)
def test_ranks_and_workers_share_the_same_global_batches(uneven_shards, world_size, workers, global_batch):
    expected = order_of(uneven_shards, global_batch)
    ranks = [
        epoch_of(uneven_shards, rank=rank, world_size=world_size, workers=workers, global_batch=global_batch)
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(expected)}
    for step, samples in enumerate(expected):
        assert torch.cat([batches[step].index for batches in ranks]).tolist() == samples
        assert all(batches[step].count == len(samples) for batches in ranks)
        assert all(batches[step].start == step * global_batch for batches in ranks)


def test_the_images_are_those_of_the_source(uneven_shards, uneven_source):
    source = uneven_source.good("train").transpose(0, 3, 1, 2)
    for batch in epoch_of(uneven_shards):
        assert batch.image.dtype == torch.uint8
        assert batch.image.is_contiguous()
        assert np.array_equal(batch["image"].numpy(), source[batch["index"].numpy()])


def test_sixty_four_ranks_get_as_many_batches_as_one_though_some_are_empty(uneven_shards, expected):
    ranks = [epoch_of(uneven_shards, rank=rank, world_size=64) for rank in range(64)]
    assert [torch.cat([batches[step].index for batches in ranks]).tolist() for step in range(len(expected))] == expected
    empty = [batch for batches in ranks for batch in batches if len(batch.index) == 0]
    assert empty
    assert all(batch.image.shape == (0, 3, 4, 6) for batch in empty)


def test_iterating_again_goes_on_with_the_next_epoch(uneven_shards):
    stream = ShardStream(uneven_shards, split="train", global_batch=GLOBAL_BATCH)
    first = torch.cat([batch.index for batch in stream])
    assert (stream.position, stream.epoch) == (211, 1)
    second = torch.cat([batch.index for batch in stream])
    assert stream.position == 422
    assert first.tolist() != second.tolist()
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(211))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_at_any_image_equals_the_uninterrupted_stream(uneven_shards, workers):
    rng = np.random.default_rng(5)
    stream = ShardStream(uneven_shards, split="train", global_batch=GLOBAL_BATCH)
    images = {split: [] for split in ("image", "index")}
    for batch in [*stream, *stream, *stream]:
        for name, parts in images.items():
            parts.append(batch[name])
    whole = {name: torch.cat(parts) for name, parts in images.items()}
    for position in rng.integers(0, 2 * 211, 20 if workers == 0 else 3).tolist():
        resumed = ShardStream(
            uneven_shards, split="train", global_batch=GLOBAL_BATCH, position=position, workers=workers
        )
        rest = list(resumed) + list(resumed)
        resumed.close()
        for name, values in whole.items():
            stretch = torch.cat([batch[name] for batch in rest])
            assert torch.equal(stretch, values[position : position + len(stretch)])
        assert resumed.position % 211 == 0
        # Once the batch that was cut is done, the global batches are those of the uninterrupted stream.
        assert all(batch.start % 211 % GLOBAL_BATCH == 0 for batch in rest[1:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_left_in_the_middle_goes_on_behind_the_last_batch_given(uneven_shards, expected, workers):
    stream = ShardStream(uneven_shards, split="train", global_batch=GLOBAL_BATCH, workers=workers)
    for batch in stream:
        if batch.start == 2 * GLOBAL_BATCH:
            break
    assert stream.position == 3 * GLOBAL_BATCH
    assert [batch.index.tolist() for batch in stream] == expected[3:]
    stream.close()


def test_without_shuffling_images_come_in_source_order(uneven_shards):
    batches = epoch_of(uneven_shards, shuffle=False)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(211))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "dev"}, "split: 'dev' is not in the shards; use one of train, valid"),
        ({"global_batch": 0}, "global_batch: 0"),
        ({"rank": 2, "world_size": 2}, "rank: 2 of 2"),
        ({"workers": -1}, "workers: -1"),
        ({"position": -1}, "position: -1"),
    ],
)
def test_a_wrong_argument_is_named(uneven_shards, wrong, message):
    with pytest.raises(InputError, match=message):
        ShardStream(uneven_shards, **{"split": "train", "global_batch": 8, **wrong})


def test_a_folder_without_a_manifest_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json there"):
        ShardStream(tmp_path, split="train", global_batch=8)
