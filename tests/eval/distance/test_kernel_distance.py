"""The kernel distance against clean-fid's formula, its unbiasedness, and the correctness of its standard error."""

import numpy as np
import pytest
import torch
from cleanfid.fid import kernel_distance as clean_fid_kernel_distance

from data_shards.io.errors import InputError
from eval.distance.measures.kernel import kernel_distance, squared_mmd


def features(n, d, seed, *, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_one_block_of_everything_is_clean_fids_value():
    a, b = features(200, 16, 0), features(200, 16, 1, shift=0.2)
    expected = clean_fid_kernel_distance(b.double().numpy(), a.double().numpy(), num_subsets=1, max_subset_size=1000)
    assert float(squared_mmd(a.double(), b.double())) == pytest.approx(expected, rel=1e-9)


def test_the_value_is_a_brute_force_sum_over_pairs():
    a, b = features(12, 3, 2).double(), features(12, 3, 3).double()

    def kernel(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(12) for j in range(12) if i != j) / (12 * 11)
    across = sum(kernel(x, y) for x in a for y in b) / 144
    assert float(squared_mmd(a, b)) == pytest.approx(within - 2 * across, rel=1e-12)


def test_two_samples_of_one_distribution_are_at_zero_within_the_standard_error():
    estimates = [kernel_distance(features(400, 8, 2 * s), features(400, 8, 2 * s + 1), seed=0) for s in range(40)]
    values = np.array([e.value for e in estimates])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5


def test_the_standard_error_is_the_deviation_over_repetitions():
    estimates = [
        kernel_distance(features(400, 8, 2 * s), features(400, 8, 2 * s + 1, shift=0.3), seed=0) for s in range(60)
    ]
    claimed = np.mean([e.standard_error for e in estimates])
    assert claimed == pytest.approx(np.std([e.value for e in estimates]), rel=0.35)


def test_the_seed_alone_decides_the_blocks():
    a, b = features(300, 8, 5), features(300, 8, 6, shift=0.1)
    assert kernel_distance(a, b, seed=3) == kernel_distance(a, b, seed=3)
    assert kernel_distance(a, b, seed=3) != kernel_distance(a, b, seed=4)


def test_too_few_images_are_one_clear_error():
    with pytest.raises(InputError, match="at least 20"):
        kernel_distance(features(19, 4, 0), features(100, 4, 1), seed=0)
