"""Fits: the likelihood rises, known parameters are recovered, no NaN, and impossible input is refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from support.mixture_cases import TYPES, draws, fitted, known_mixture, plain

from data_shards.io.errors import InputError
from trainer.mixture import GaussianMixture


@pytest.mark.parametrize("kind", TYPES)
def test_the_log_likelihood_never_falls(kind):
    x = draws(known_mixture(kind, k=6, dim=5, spread=1.0), 800)
    mixture = GaussianMixture(6, covariance_type=kind, **plain(tol=1e-12, max_iter=40)).fit(x)
    values = [record["log_likelihood"] for record in mixture.history_]
    assert len(values) > 5
    assert all(after >= before - 1e-10 for before, after in itertools.pairwise(values))


@pytest.mark.parametrize("kind", TYPES)
def test_known_parameters_are_recovered(kind):
    truth = known_mixture(kind, k=3, dim=2, spread=6.0, seed=5)
    mixture = GaussianMixture(3, covariance_type=kind).fit(draws(truth, 20_000))
    order = torch.cdist(truth.means_, mixture.means_).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(mixture.means_[order], truth.means_, rtol=0, atol=0.06)
    torch.testing.assert_close(mixture.weights_[order], truth.weights_, rtol=0, atol=0.02)
    covariances = mixture.covariances_ if kind == "tied" else mixture.covariances_[order]
    torch.testing.assert_close(covariances, truth.covariances_, rtol=0.12, atol=0.06)


@pytest.mark.parametrize("kind", TYPES)
def test_a_fit_by_defaults_reaches_the_truth_on_separated_clusters(kind):
    truth = known_mixture(kind, k=5, dim=4, spread=12.0, seed=2)
    fresh = draws(truth, 3000, seed=9)
    assert GaussianMixture(5, covariance_type=kind).fit(draws(truth, 3000)).score(fresh) > truth.score(fresh) - 0.03


@pytest.mark.parametrize("kind", TYPES)
def test_one_component_is_the_mean_and_covariance_of_the_points(kind):
    x = draws(known_mixture("full"), 500).double()
    mixture = GaussianMixture(1, covariance_type=kind, **plain(reg_covar=0.0)).fit(x)
    covariance = np.cov(x.numpy().T, bias=True)
    expected = {
        "full": covariance[None],
        "tied": covariance,
        "diag": covariance.diagonal()[None],
        "spherical": covariance.diagonal().mean()[None],
    }[kind]
    assert mixture.weights_.tolist() == [1.0]
    np.testing.assert_allclose(mixture.means_[0].numpy(), x.mean(0).numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mixture.covariances_.numpy(), expected, rtol=1e-10)


def test_points_that_are_gaussians_add_their_variance_to_the_covariance():
    # Equation 11 with one component: the covariance of sum_i N(x_i, diag(v_i)) / N is exact.
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(400, 3, generator=generator).double(), torch.rand(400, 3, generator=generator).double()
    mixture = fitted(x, 1, variance=v, **plain(reg_covar=0.0))
    expected = np.cov(x.numpy().T, bias=True) + np.diag(v.mean(0).numpy())
    np.testing.assert_allclose(mixture.covariances_[0].numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_em_on_gaussians_is_the_limit_of_em_on_many_samples_of_each(kind):
    # With separated clusters the responsibilities of a code's samples agree, so that both fit the same mixture.
    generator = torch.Generator().manual_seed(0)
    x = draws(known_mixture(kind, k=3, dim=2, spread=20.0, seed=5), 300).double()
    v = 0.3 * torch.rand(300, 2, generator=generator).double()
    noise = torch.randn(500, 300, 2, generator=generator, dtype=torch.float64)
    samples = (x + v.sqrt() * noise).flatten(0, 1)
    settings = plain(max_iter=5)
    analytic = fitted(x, 3, variance=v, covariance_type=kind, **settings)
    sampled = fitted(samples, 3, start=analytic.parameters_, covariance_type=kind, **settings)
    torch.testing.assert_close(sampled.means_, analytic.means_, rtol=0, atol=0.02)
    torch.testing.assert_close(sampled.covariances_, analytic.covariances_, rtol=0.03, atol=0.02)


def test_the_map_covariance_is_the_weighted_mean_of_its_own_and_of_the_common_shape_at_its_own_size():
    # Two clusters so far apart that responsibilities are 0 and 1.
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 2, generator=generator).double(), 5 * torch.randn(10, 2, generator=generator).double() + 1000
    nu = 7.0
    mixture = GaussianMixture(2, **plain(prior_strength=nu, reg_covar=0.0)).fit(torch.cat([a, b]))
    scatter = [np.cov(part.numpy().T, bias=True) * len(part) for part in (a, b)]
    counts, inverse = np.array([30, 10]), np.eye(2)
    part = 2 / (9 * 2 * (counts - 2))
    limits = (1 - part - 2.326 * np.sqrt(part)) ** -3
    np.testing.assert_allclose(limits, 2 * (counts - 2) / chi2.ppf(0.01, 2 * (counts - 2)), rtol=0.01)

    def sizes_beside(inverse):
        traces = np.array([np.trace(s @ inverse) / 2 for s in scatter])
        # A pseudo-point of the mean size, but of no more than the component's own points allow.
        return (traces + np.minimum(traces.sum() / 38, limits * traces / (counts - 1))) / counts

    for _ in range(2):
        sizes = sizes_beside(inverse)
        shape = (scatter[0] / sizes[0] + scatter[1] / sizes[1]) / 38
        inverse = np.linalg.inv(shape)
    sizes = sizes_beside(inverse)
    first = int(mixture.means_[:, 0].argmin())
    for index, part, own, size in ((first, a, scatter[0], sizes[0]), (1 - first, b, scatter[1], sizes[1])):
        expected = (own + nu * size * shape) / (len(part) + nu)
        np.testing.assert_allclose(mixture.covariances_[index].numpy(), expected, rtol=1e-6)


def test_five_points_a_component_give_a_usable_density():
    truth = known_mixture("full", k=40, dim=16, spread=4.0)
    x, fresh = draws(truth, 1000), draws(truth, 2000, seed=8)
    one = GaussianMixture(1).fit(x).score(fresh)
    assert GaussianMixture(200).fit(x).score(fresh) > one
    assert GaussianMixture(200, **plain()).fit(x).score(fresh) < one - 100


def test_float32_points_with_tiny_variances_have_positive_covariances():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator) * 1e-8 + 1e-4
    mixture = GaussianMixture(2, **plain(products="auto", reg_covar=1e-20)).fit(x)
    assert mixture.parameters_.eigenvalue_range()[0] > 0
    assert mixture.score(x) == pytest.approx(GaussianMixture(1, **plain(reg_covar=1e-20)).fit(x).score(x), abs=0.1)


@pytest.mark.parametrize("kind", TYPES)
def test_duplicated_points_give_a_finite_result(kind):
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(50, 1)
    mixture = GaussianMixture(4, covariance_type=kind).fit(x)
    assert math.isfinite(mixture.score(x))
    assert torch.isfinite(mixture.means_).all()
    assert mixture.weights_.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("kind", TYPES)
def test_a_constant_column_is_modelled_by_the_ridge(kind):
    x = torch.cat([draws(known_mixture("full"), 300), torch.full((300, 1), 3.0)], 1)
    mixture = GaussianMixture(3, covariance_type=kind).fit(x)
    assert math.isfinite(mixture.score(x))
    np.testing.assert_allclose(mixture.means_[:, 3].numpy(), 3.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_a_constant_column_does_not_narrow_the_components_in_the_others(kind):
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The third column follows from the first where matrices are full, and is constant else.
    x[:, 2] = 1 + x[:, 0] if kind != "diag" else 1.0
    mixture = GaussianMixture(1, covariance_type=kind).fit(x)
    assert mixture.inflation_ == 1.0
    variances = mixture.parameters_.variances()[0, :2]
    np.testing.assert_allclose(variances.numpy(), x[:, :2].var(0, correction=0).numpy(), rtol=0.01)


@pytest.mark.parametrize("kind", TYPES)
def test_points_may_have_one_dimension(kind):
    x = torch.cat([torch.randn(300, 1), torch.randn(300, 1) + 20])
    mixture = GaussianMixture(2, covariance_type=kind).fit(x)
    assert sorted(round(value / 10) for value in mixture.means_[:, 0].tolist()) == [0, 2]


@pytest.mark.parametrize("kind", TYPES)
def test_as_many_components_as_points_is_allowed(kind):
    x = draws(known_mixture("full"), 30)
    assert math.isfinite(GaussianMixture(30, covariance_type=kind).fit(x).score(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 2), "n_components: 5 components for 3 points"),
        (torch.tensor([[0.0, float("nan")]] * 9), "X: some values are NaN or infinite"),
        (torch.zeros(9), r"X: shape \(9,\) is not \(points, dimensions\)"),
    ],
)
def test_points_that_cannot_be_fitted_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        GaussianMixture(5).fit(x)


def test_variances_must_match_their_points():
    with pytest.raises(InputError, match="variance of X: 3 rows for 9 points"):
        fitted(torch.zeros(9, 2), 2, variance=torch.ones(3, 2))
    with pytest.raises(InputError, match="variance of X: some values are negative"):
        fitted(torch.zeros(9, 2), 2, variance=-torch.ones(9, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 0}, "n_components: 0 is not a whole number of at least 1"),
        ({"covariance_type": "banana"}, "covariance_type: 'banana' is not one of full, tied, diag, spherical"),
        ({"reg_covar": -1.0}, "reg_covar: -1.0 is not a number of at least 0"),
        ({"candidates": 6}, "candidates: 6 is not 0 or a multiple of 4"),
        ({"inflation": 0.0}, "inflation: 0.0 is not a number above 0"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(settings, message):
    with pytest.raises(InputError, match=message):
        GaussianMixture(**settings).fit(torch.zeros(9, 2))


def test_a_singular_covariance_without_ridge_is_one_clear_error():
    with pytest.raises(InputError, match=r"reg_covar: Fitting the mixture model failed .*2 covariances"):
        GaussianMixture(2, **plain(reg_covar=0.0)).fit(torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(20, 1))


def test_a_component_without_points_takes_half_of_the_heaviest():
    truth = known_mixture("full", k=2, dim=2, spread=10.0)
    x = draws(truth, 400)
    far = torch.full((1, 2), 1e4, dtype=torch.float64)
    start = GaussianMixture.from_parameters(
        torch.ones(3) / 3, torch.cat([truth.means_, far]), torch.eye(2).double().expand(3, 2, 2), "full"
    )
    mixture = fitted(x, 3, start=start.parameters_, **plain())
    assert mixture.weights_.min() > 0.01
    assert mixture.means_.abs().max() < 100


@pytest.mark.gpu
@pytest.mark.parametrize("candidates", [0, 16])
def test_a_fit_on_a_gpu_is_as_good_as_one_on_the_cpu(candidates):
    truth = known_mixture("full", k=30, dim=8, spread=4.0)
    x, fresh = draws(truth, 6000), draws(truth, 2000, seed=5)
    settings = {"candidates": candidates, "max_iter": 14}
    on_gpu = GaussianMixture(30, **settings).fit(x.cuda())
    on_cpu = GaussianMixture(30, **settings).fit(x)
    assert on_gpu.score(fresh) == pytest.approx(on_cpu.score(fresh), abs=0.02)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_narrow_clusters_beside_broad_ones_keep_their_width(kind):
    generator = torch.Generator().manual_seed(0)
    widths = [0.01, 0.1, 1.0]
    x = torch.cat([w * torch.randn(400, 3, generator=generator).double() + 20 * i for i, w in enumerate(widths)])
    mixture = GaussianMixture(3, covariance_type=kind).fit(x)
    order = mixture.means_[:, 0].argsort()
    found = torch.stack([torch.as_tensor(c).reshape(-1)[0].sqrt() for c in mixture.covariances_[order]])
    np.testing.assert_allclose(found, widths, rtol=0.1)


def test_inflation_is_chosen_only_where_it_gains_more_than_chance():
    factors = [
        GaussianMixture(1).fit(torch.randn(300, 3, generator=torch.Generator().manual_seed(s))).inflation_
        for s in range(10)
    ]
    assert factors.count(1.0) >= 8


def test_a_choice_at_the_end_of_its_range_is_a_warning():
    # A covariance of hardly more points than dimensions is far too narrow.
    x = torch.randn(30, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.warns(UserWarning, match="inflation: the best is 4, at the end of what is tried"):
        GaussianMixture(1, prior_strength=0.0).fit(x)


def test_lost_components_are_replaced_where_that_helps():
    truth = known_mixture("full", k=30, dim=3, spread=6.0)
    mixture = GaussianMixture(30, init_params="random", kmeans_iter=1).fit(draws(truth, 3000))
    assert mixture.alive_ >= 29


def test_fewer_distinct_points_than_components_are_warned_of():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double().repeat(10, 1)
    with pytest.warns(UserWarning, match="n_components: only 50 of 120 clusters of k-means have points"):
        GaussianMixture(120, candidates=0, max_iter=3).fit(x)
