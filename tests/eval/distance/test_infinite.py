"""The distance at infinite n, where the true distance between the distributions is known."""

import numpy as np
import pytest
import torch

from data_shards.io.errors import InputError
from eval.distance.measures.frechet import frechet_distance
from eval.distance.measures.infinite import frechet_at_infinity
from eval.distance.statistics import FeatureStatistics

D = 20


def statistics(features):
    made = FeatureStatistics(features.shape[1])
    made.update(features, torch.arange(len(features)))
    return made


def gaussian(n, seed, shift=0.0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, D)) + shift, dtype=torch.float32)


@pytest.fixture(scope="module")
def reference():
    """So many vectors that its own error does not matter."""
    return statistics(gaussian(200_000, 0))


def test_the_bias_of_small_samples_is_extrapolated_away(reference):
    # The distributions are the same, so that whatever is above 0 is bias.
    biased, extrapolated = [], []
    for seed in range(1, 13):
        features = gaussian(400, seed)
        finite = statistics(features)
        distance = frechet_distance(finite.mean(), finite.covariance(), reference.mean(), reference.covariance())
        biased.append(distance)
        extrapolated.append(frechet_at_infinity(features, reference, seed=0).value)
    assert np.mean(biased) > 0.1
    assert abs(np.mean(extrapolated)) < 0.25 * np.mean(biased)


def test_the_interval_holds_the_value_and_shrinks_with_n(reference):
    widths = []
    for n in (300, 3000):
        got = frechet_at_infinity(gaussian(n, 2, shift=0.3), reference, seed=0)
        low, high = got.interval_95
        assert low <= got.value <= high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_the_seed_alone_decides(reference):
    features = gaussian(300, 3)
    assert frechet_at_infinity(features, reference, seed=1) == frechet_at_infinity(features, reference, seed=1)


def test_too_few_images_are_one_clear_error(reference):
    with pytest.raises(InputError, match="at least 4"):
        frechet_at_infinity(gaussian(3, 0), reference, seed=0)
