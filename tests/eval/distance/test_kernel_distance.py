"""The kernel distance against clean-fid's formula, its unbiasedness, and the correctness of its standard error."""

import numpy as np
import pytest
import torch
from cleanfid.fid import kernel_distance as clean_fid_kernel_distance

from data_shards.io.errors import InputError
from eval.distance.measures import kernel as module
from eval.distance.measures.kernel import kernel_distance


def features(n, d, seed, *, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_value_is_clean_fids_where_one_subset_holds_all_images():
    a, b = features(200, 16, 0), features(200, 16, 1, shift=0.2)
    expected = clean_fid_kernel_distance(b.double().numpy(), a.double().numpy(), num_subsets=1, max_subset_size=1000)
    assert kernel_distance(a, b).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [1024, 5])
def test_the_value_is_a_brute_force_sum_over_all_pairs_of_sets_of_any_two_sizes(monkeypatch, rows):
    monkeypatch.setattr(module, "_ROWS", rows)
    a, b = features(12, 3, 2).double(), features(9, 3, 3).double()
    assert kernel_distance(a, b).value == pytest.approx(brute_force(a, b), rel=1e-12)


def brute_force(a, b):
    def kernel(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    within = sum(
        kernel(s[i], s[j]) / (len(s) * (len(s) - 1))
        for s in (a, b)
        for i in range(len(s))
        for j in range(len(s))
        if i != j
    )
    return within - 2 * sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))


def test_the_standard_error_is_the_jackknifes():
    a, b = features(8, 3, 2).double(), features(11, 3, 3).double()
    without = [np.array([brute_force(a[torch.arange(8) != i], b) for i in range(8)])]
    without.append(np.array([brute_force(a, b[torch.arange(11) != i]) for i in range(11)]))
    expected = sum((len(w) - 1) * w.var() for w in without) ** 0.5
    assert kernel_distance(a, b).standard_error == pytest.approx(expected, rel=1e-9)


def test_it_scatters_less_than_clean_fids_subsets():
    ours, theirs = [], []
    np.random.seed(0)
    for seed in range(40):
        a, b = features(300, 8, 2 * seed), features(300, 8, 2 * seed + 1, shift=0.3)
        ours.append(kernel_distance(a, b).value)
        theirs.append(clean_fid_kernel_distance(b.double().numpy(), a.double().numpy(), 10, 30))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.1)
    assert np.std(ours) <= np.std(theirs)


def test_two_samples_of_one_distribution_are_at_zero_within_the_standard_error():
    estimates = [kernel_distance(features(400, 8, 2 * s), features(400, 8, 2 * s + 1)) for s in range(40)]
    values = np.array([e.value for e in estimates])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5


def test_the_standard_error_is_the_deviation_over_repetitions():
    estimates = [kernel_distance(features(400, 8, 2 * s), features(400, 8, 2 * s + 1, shift=0.3)) for s in range(60)]
    claimed = np.mean([e.standard_error for e in estimates])
    assert claimed == pytest.approx(np.std([e.value for e in estimates]), rel=0.35)


def test_too_few_images_are_one_clear_error():
    with pytest.raises(InputError, match="at least 3"):
        kernel_distance(features(2, 4, 0), features(100, 4, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift"), [(100, 0.0), (400, 0.0), (100, 0.1), (400, 0.1), (400, 0.5)])
def test_two_standard_errors_hold_the_truth_in_95_percent_of_300_trials(n, shift):
    truth = (
        kernel_distance(features(12_000, 8, 10**6), features(12_000, 8, 10**6 + 1, shift=shift)).value if shift else 0
    )
    held = 0
    for trial in range(300):
        got = kernel_distance(features(n, 8, 2 * trial), features(n, 8, 2 * trial + 1, shift=shift))
        held += abs(got.value - truth) <= 1.96 * got.standard_error
    # Three standard deviations of a coverage of 0.95 over 300 trials are 0.038.
    assert held / 300 >= 0.912
