"""The order of an epoch is a pure function, and a permutation."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.stream.order import EpochOrder, shuffle_quality


class Counts:
    def __init__(self, counts, window, hash="0" * 64):
        self._counts, self.window, self.hash = np.array(counts, np.int64), window, hash

    def shard_counts(self, split):
        return self._counts


shards = st.builds(Counts, st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 5))


def whole(manifest, seed=0, epoch=0):
    stop = int(manifest.shard_counts("train").sum())
    return EpochOrder(manifest, split="train", seed=seed, epoch=epoch)(0, stop)


def by_hand(manifest, seed, epoch):
    """The definition, by loops over lists: shards by random keys, windows of them, samples by random keys."""

    def keys(count, *purpose):
        text = "|".join(map(str, [manifest.hash, "train", seed, epoch, *purpose]))
        key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
        return np.random.Philox(key=key).random_raw(count).tolist()

    counts = manifest.shard_counts("train").tolist()
    samples, start = [], 0
    for count in counts:
        samples.append(list(range(start, start + count)))
        start += count
    order = [shard for _, shard in sorted(zip(keys(len(counts), "shards"), range(len(counts)), strict=True))]
    result = []
    for window, first in enumerate(range(0, len(order), manifest.window)):
        inside = [sample for shard in order[first : first + manifest.window] for sample in samples[shard]]
        result += [sample for _, sample in sorted(zip(keys(len(inside), "window", window), inside, strict=True))]
    return result


@given(shards, st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_holds_each_sample_once(manifest, seed, epoch):
    order = whole(manifest, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(int(manifest.shard_counts("train").sum())))


@given(shards, st.data())
def test_any_stretch_is_that_stretch_of_the_whole(manifest, data):
    order = whole(manifest)
    start = data.draw(st.integers(0, len(order)))
    stop = data.draw(st.integers(start, len(order)))
    stretch = EpochOrder(manifest, split="train", seed=0, epoch=0)(start, stop)
    assert stretch.tolist() == order[start:stop].tolist()


@settings(max_examples=40)
@given(shards, st.integers(0, 100), st.integers(0, 100))
def test_the_order_is_the_one_defined_by_loops(manifest, seed, epoch):
    assert whole(manifest, seed, epoch).tolist() == by_hand(manifest, seed, epoch)


def test_the_order_is_the_same_on_every_machine_and_in_every_release():
    order = whole(Counts([5, 3, 4], 2), seed=1, epoch=2)
    assert order.tolist() == [10, 9, 8, 11, 6, 5, 7, 3, 1, 0, 4, 2]


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_another_order(other):
    manifest = Counts([50] * 4, 2)
    assert whole(manifest).tolist() != whole(manifest, **other).tolist()


def test_another_manifest_hash_gives_another_order():
    assert whole(Counts([50] * 4, 2)).tolist() != whole(Counts([50] * 4, 2, hash="1" * 64)).tolist()


def test_without_shuffling_the_order_is_that_of_the_source():
    order = EpochOrder(Counts([5, 3, 4], 2), split="train", seed=0, epoch=0, shuffle=False)
    assert order(2, 11).tolist() == list(range(2, 11))


def test_positions_outside_the_epoch_are_refused():
    with pytest.raises(ValueError, match="not within"):
        EpochOrder(Counts([5], 1), split="train", seed=0, epoch=0)(0, 6)


def test_shuffle_quality_is_the_correlation_that_numpy_computes():
    order = EpochOrder(Counts([100] * 40, 4), split="train", seed=3, epoch=0)
    samples = order(0, 4000)
    measured = shuffle_quality(order)
    assert measured.correlation == pytest.approx(np.corrcoef(samples[:-1], samples[1:])[0, 1], abs=1e-3)


@pytest.mark.parametrize("images", [1, 2])
def test_an_epoch_without_two_pairs_has_no_correlation(images):
    assert "nan" not in str(shuffle_quality(EpochOrder(Counts([images], 1), split="train", seed=0, epoch=0)))


def test_small_windows_shuffle_worse_than_one_window_over_all():
    def quality(window):
        return shuffle_quality(EpochOrder(Counts([100] * 64, window), split="train", seed=0, epoch=0))

    assert quality(1).correlation > 0.9
    assert abs(quality(64).correlation) < 4 * quality(64).deviation
