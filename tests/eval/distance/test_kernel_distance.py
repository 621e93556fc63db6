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


def test_the_standard_error_is_the_jackknifes_with_the_part_of_pairs_counted_once():
    a, b = features(8, 3, 2).double(), features(11, 3, 3).double()
    without = [np.array([brute_force(a[torch.arange(8) != i], b) for i in range(8)])]
    without.append(np.array([brute_force(a, b[torch.arange(11) != i]) for i in range(11)]))
    jackknife = sum((len(w) - 1) * w.var() for w in without)
    of_pairs = 2 * within(a) / (8 * 7) + 2 * within(b) / (11 * 10) + 4 * between(a, b) / (8 * 11)
    expected = max(jackknife - of_pairs, of_pairs) ** 0.5
    assert kernel_distance(a, b).standard_error == pytest.approx(expected, rel=1e-9)


def matrix(x, y):
    return ((x @ y.T) / x.shape[1] + 1).pow(3).numpy()


def within(x):
    """Mean square of a matrix centred without bias, as in the distance covariance of Szekely and Rizzo (2014)."""
    k, n = matrix(x, x), len(x)
    total = 0.0
    np.fill_diagonal(k, 0)
    for i in range(n):
        for j in range(n):
            if i != j:
                total += (k[i, j] - (k[i].sum() + k[:, j].sum()) / (n - 2) + k.sum() / ((n - 1) * (n - 2))) ** 2
    return total / (n * (n - 3))


def between(x, y):
    k = matrix(x, y)
    left = k - k.mean(1, keepdims=True) - k.mean(0, keepdims=True) + k.mean()
    return (left**2).sum() / ((len(x) - 1) * (len(y) - 1))


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


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_the_standard_error_is_the_deviation_over_repetitions(shift):
    estimates = [kernel_distance(features(200, 8, 2 * s), features(200, 8, 2 * s + 1, shift=shift)) for s in range(150)]
    claimed = np.mean([e.standard_error**2 for e in estimates]) ** 0.5
    # A deviation over 150 trials is known to 6 %; of two equal distributions the error is a little too large.
    assert 0.85 < claimed / np.std([e.value for e in estimates]) < (1.15 if shift else 1.4)


def held(trials, n, m, *, d=8, shift=0.0, skewed=False):
    """Part of the trials whose interval holds the truth, which is the mean over all trials, or 0 without a shift."""
    generator = torch.Generator().manual_seed(n + m)

    def draw(count, shift=0.0):
        x = torch.randn(count, d, generator=generator)
        return (torch.relu(1.5 * x + 0.45 * x[:, :1]) if skewed else x) + shift

    estimates = [kernel_distance(draw(n), draw(m, shift)) for _ in range(trials)]
    truth = np.mean([e.value for e in estimates]) if shift else 0.0
    return np.mean([e.interval_95[0] <= truth <= e.interval_95[1] for e in estimates])


# Three standard deviations of a coverage of 0.95 over 400 trials are 0.033.
ENOUGH = 0.917


@pytest.mark.parametrize(
    ("n", "m", "shift", "skewed"),
    [(100, 100, 0.5, False), (100, 100, 0.0, False), (100, 100, 0.2, False), (40, 90, 0.5, False), (80, 80, 0.3, True)],
)
def test_the_interval_holds_the_truth_in_95_percent_of_400_trials(n, m, shift, skewed):
    assert held(400, n, m, shift=shift, skewed=skewed) >= ENOUGH


def test_a_set_compared_with_itself_has_an_interval_around_its_value():
    a = features(50, 4, 0)
    got = kernel_distance(a, a)
    assert got.interval_95[0] <= got.value <= got.interval_95[1]
    constant = kernel_distance(torch.ones(10, 4), torch.ones(12, 4))
    assert (constant.standard_error, constant.interval_95) == (
        pytest.approx(0, abs=1e-6),
        pytest.approx((0, 0), abs=1e-5),
    )


def test_too_few_images_are_one_clear_error():
    with pytest.raises(InputError, match="at least 4"):
        kernel_distance(features(3, 4, 0), features(100, 4, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift"), [(100, 0.1), (400, 0.0), (400, 0.1), (400, 0.5), (1000, 0.5)])
@pytest.mark.parametrize("d", [8, 64])
def test_the_interval_covers_at_every_distance_and_size(n, shift, d):
    assert held(400, n, n, d=d, shift=shift) >= ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_of_2000_images_it_scatters_no_more_than_clean_fids_100_subsets_of_1000(shift):
    ours, theirs = [], []
    np.random.seed(0)
    for seed in range(16):
        a, b = features(2000, 32, 2 * seed), features(2000, 32, 2 * seed + 1, shift=shift)
        ours.append(kernel_distance(a, b).value)
        theirs.append(clean_fid_kernel_distance(b.double().numpy(), a.double().numpy(), 100, 1000))
    print(f"n = 2000, shift {shift}: scatter {np.std(ours):.3g}, clean-fid's {np.std(theirs):.3g}")
    assert np.std(ours) <= 1.02 * np.std(theirs)
