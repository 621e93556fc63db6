"""The Frechet distance against closed forms, scipy's matrix square root, clean-fid, and factors of the data."""

import numpy as np
import pytest
import scipy.linalg
import torch
from cleanfid.fid import frechet_distance as clean_fid_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.distance.measures.frechet import frechet_distance


def covariance(d, n, seed, *, decades=1.0):
    """Mean and covariance of n vectors whose standard deviations fall over `decades` powers of ten."""
    x = np.random.default_rng(seed).normal(size=(n, d)) * np.logspace(0, -decades, d) + seed
    return torch.tensor(x.mean(0)), torch.tensor(np.cov(x, rowvar=False))


def rotation(d, seed):
    return torch.tensor(np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0])


def test_a_gaussian_is_at_distance_zero_from_itself():
    mean, cov = covariance(40, 200, 0)
    assert frechet_distance(mean, cov, mean, cov) < 1e-12 * cov.trace()


def test_commuting_covariances_give_the_closed_form():
    d, turn = 60, rotation(60, 1)
    a, b = torch.logspace(0, -6, d, dtype=torch.float64), torch.logspace(-3, 1, d, dtype=torch.float64)
    shift = torch.linspace(0, 1, d, dtype=torch.float64)
    expected = shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    got = frechet_distance(shift, turn @ a.diag() @ turn.T, torch.zeros(d), turn @ b.diag() @ turn.T)
    assert got == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("decades", [0.5, 2, 4, 6])
def test_near_gaussians_keep_nine_digits_on_either_route(decades):
    d, turn = 300, rotation(300, 10)
    a = torch.logspace(0, -decades, d, dtype=torch.float64)
    b = a * (1 + 0.3 * torch.sin(torch.arange(d)))
    expected = (a.sqrt() - b.sqrt()).square().sum()  # less than 1 % of the traces
    got = frechet_distance(torch.zeros(d), turn @ a.diag() @ turn.T, torch.zeros(d), turn @ b.diag() @ turn.T)
    assert got == pytest.approx(float(expected), rel=1e-9)


def test_covariances_with_eigenvalues_over_ten_decades_keep_nine_digits():
    d, turn = 80, rotation(80, 2)
    a = torch.logspace(2, -8, d, dtype=torch.float64)
    b = a.flip(0)
    expected = (a.sqrt() - b.sqrt()).square().sum()
    got = frechet_distance(torch.zeros(d), turn @ a.diag() @ turn.T, torch.zeros(d), turn @ b.diag() @ turn.T)
    assert got == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("d", [1, 7, 64, 200])
def test_it_equals_scipys_matrix_square_root_in_float64(d):
    (mean_a, cov_a), (mean_b, cov_b) = covariance(d, 3 * d + 2, 3), covariance(d, 4 * d + 2, 4)
    cov_a, cov_b = cov_a.reshape(d, d), cov_b.reshape(d, d)
    root = scipy.linalg.sqrtm((cov_a @ cov_b).numpy()).real
    expected = float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()) - 2 * np.trace(root)
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_a", "n_b"), [(20, 30), (20, 500), (500, 20)])
def test_fewer_vectors_than_dimensions_give_what_the_vectors_themselves_say(n_a, n_b):
    # tr (A B)^(1/2) is the nuclear norm of X^T Y where A = X X^T and B = Y Y^T, X and Y the centred data.
    rng, d = np.random.default_rng(5), 100
    x, y = rng.normal(size=(n_a, d)) * np.linspace(1, 3, d), rng.normal(size=(n_b, d)) + 0.3
    centred_x, centred_y = (x - x.mean(0)) / np.sqrt(n_a - 1), (y - y.mean(0)) / np.sqrt(n_b - 1)
    overlap = np.linalg.svd(centred_x @ centred_y.T, compute_uv=False).sum()
    apart = np.square(x.mean(0) - y.mean(0)).sum() + np.square(centred_x).sum() + np.square(centred_y).sum()
    covs = [torch.tensor(np.cov(v, rowvar=False)) for v in (x, y)]
    got = frechet_distance(torch.tensor(x.mean(0)), covs[0], torch.tensor(y.mean(0)), covs[1])
    assert got == pytest.approx(apart - 2 * overlap, rel=1e-9)


def test_features_that_never_vary_add_only_their_means():
    (mean_a, cov_a), (mean_b, cov_b) = covariance(30, 90, 6), covariance(30, 90, 7)
    alive = frechet_distance(mean_a, cov_a, mean_b, cov_b)

    def with_dead(mean, cov, value):
        padded = torch.zeros(50, 50, dtype=torch.float64)
        padded[:30, :30] = cov
        return torch.cat([mean, torch.full((20,), value, dtype=torch.float64)]), padded

    got = frechet_distance(*with_dead(mean_a, cov_a, 1.0), *with_dead(mean_b, cov_b, 1.5))
    assert got == pytest.approx(alive + 20 * 0.25, rel=1e-9)


def test_clean_fids_own_distance_is_reproduced():
    (mean_a, cov_a), (mean_b, cov_b) = covariance(128, 1000, 8), covariance(128, 900, 9)
    expected = clean_fid_distance(mean_a.numpy(), cov_a.numpy(), mean_b.numpy(), cov_b.numpy())
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(float(expected), rel=1e-8)


@settings(deadline=None, max_examples=25)
@given(d=st.integers(1, 20), n=st.integers(2, 40), seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e3))
def test_it_is_symmetric_and_scales_with_the_square_of_the_unit(d, n, seed, scale):
    (mean_a, cov_a), (mean_b, cov_b) = covariance(d, n, seed), covariance(d, n + 3, seed + 1)
    cov_a, cov_b = cov_a.reshape(d, d), cov_b.reshape(d, d)
    there = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert frechet_distance(mean_b, cov_b, mean_a, cov_a) == pytest.approx(there, rel=1e-8)
    scaled = frechet_distance(scale * mean_a, scale**2 * cov_a, scale * mean_b, scale**2 * cov_b)
    assert scaled == pytest.approx(scale**2 * there, rel=1e-8)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit together"):
        frechet_distance(torch.zeros(3), torch.eye(3), torch.zeros(4), torch.eye(4))


def test_an_entry_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(2), torch.eye(2) * float("nan"))


@pytest.mark.parametrize("constant", [0.3, 0.95, 1.0])
@pytest.mark.parametrize("n", [20, 900])
def test_constant_features_change_nothing_but_the_means(constant, n):
    d = 300
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(n, d)), 1.3 * rng.normal(size=(n, d))
    fixed = rng.permutation(d)[: int(constant * d)]
    a[:, fixed], b[:, fixed] = 5.0, 5.5
    moments = [torch.tensor(m) for x in (a, b) for m in (x.mean(0), np.cov(x, rowvar=False))]
    varying = np.setdiff1d(np.arange(d), fixed)
    rest = [m[varying] if m.ndim == 1 else m[varying][:, varying] for m in moments]
    expected = len(fixed) * 0.25 + (frechet_distance(*rest) if len(varying) else 0)
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-9)
