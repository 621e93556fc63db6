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


def coverage(trials, n, *, d, shift, scale, skewed):
    """Part of the trials whose interval holds the true distance, that of four million samples."""
    generator = torch.Generator().manual_seed(n)
    spectrum = torch.logspace(0, -2, d)

    def draw(count, shift=0.0, scale=1.0):
        z = torch.randn(count, d, generator=generator)
        return scale * (torch.relu(z + 0.3 * z[:, :1]) if skewed else z) * spectrum.sqrt() + shift

    against = statistics(draw(4000))
    mean, covariance = against.mean(), against.covariance()
    many = draw(4_000_000 // d, shift, scale).double()
    truth = frechet_distance(many.mean(0), many.T.cov(), mean, covariance)
    held = 0
    for trial in range(trials):
        low, high = frechet_at_infinity(draw(n, shift, scale), against, seed=trial).interval_95
        held += low <= truth <= high
    return held / trials


def test_the_95_percent_interval_holds_the_truth_in_95_percent_of_trials():
    # 54 of 60 or more where each holds with a chance of 0.95: by chance fewer in 1 of 60 such tests, with a fixed seed.
    assert coverage(60, 300, d=16, shift=0.1, scale=1.1, skewed=True) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 600, 2000])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.02, 1.02), (0.1, 1.1), (0.3, 1.5)])
@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_covers_at_every_distance_and_size(n, shift, scale, skewed):
    # Three standard deviations of a coverage of 0.95 over 300 trials are 0.038.
    assert coverage(300, n, d=24, shift=shift, scale=scale, skewed=skewed) >= 0.912


def test_the_seed_alone_decides(reference):
    features = gaussian(300, 3)
    assert frechet_at_infinity(features, reference, seed=1) == frechet_at_infinity(features, reference, seed=1)


def test_too_few_images_are_one_clear_error(reference):
    with pytest.raises(InputError, match="at least 22"):
        frechet_at_infinity(gaussian(3, 0), reference, seed=0)
