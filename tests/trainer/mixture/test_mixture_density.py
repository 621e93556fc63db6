"""Log-densities, samples and gradients of a mixture, against scipy and brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from support.mixture_cases import TYPES, dense_covariances, draws, known_mixture

from data_shards.io.errors import InputError
from trainer.mixture import GaussianMixture
from trainer.mixture.density import MixtureDensity


def by_scipy(mixture, x) -> np.ndarray:
    """log w_k + log N(x; mu_k, Sigma_k), (n, K), by scipy."""
    parts = zip(mixture.weights_.numpy(), mixture.means_.numpy(), dense_covariances(mixture), strict=True)
    return np.stack([np.log(w) + multivariate_normal.logpdf(x, m, c) for w, m, c in parts], 1)


@pytest.mark.parametrize("kind", TYPES)
def test_score_samples_agrees_with_scipy(kind):
    mixture = known_mixture(kind)
    x = draws(mixture, 200).double()
    expected = logsumexp(by_scipy(mixture, x.numpy()), axis=1)
    torch.testing.assert_close(mixture.score_samples(x), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_predict_proba_is_the_posterior_of_the_components(kind):
    mixture = known_mixture(kind, spread=1.0)
    x = draws(mixture, 200).double()
    joint = by_scipy(mixture, x.numpy())
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    torch.testing.assert_close(mixture.predict_proba(x), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_gradient_of_the_log_density_is_the_responsibility_weighted_pull_of_the_components(kind):
    mixture = known_mixture(kind, spread=1.0)
    z = draws(mixture, 20).double().requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.score_samples(z).sum(), z)
    shares = mixture.predict_proba(z.detach()).numpy()
    pulls = np.stack(
        [
            np.linalg.solve(c, (m - z.detach().numpy()).T).T
            for m, c in zip(mixture.means_.numpy(), dense_covariances(mixture), strict=True)
        ],
        1,
    )  # (n, K, D)
    expected = (shares[:, :, None] * pulls).sum(1)
    torch.testing.assert_close(gradient, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_samples_have_the_moments_of_the_mixture(kind):
    mixture = known_mixture(kind)
    x = draws(mixture, 200_000).double()
    w, m, c = mixture.weights_.numpy(), mixture.means_.numpy(), dense_covariances(mixture)
    mean = w @ m
    covariance = np.einsum("k,kij->ij", w, c + np.einsum("ki,kj->kij", m - mean, m - mean))
    error = np.sqrt(covariance.diagonal() / len(x))
    assert np.all(np.abs(x.mean(0).numpy() - mean) < 5 * error)
    np.testing.assert_allclose(np.cov(x.numpy().T), covariance, atol=0.02 * covariance.max())


def test_the_same_generator_gives_the_same_samples():
    mixture = known_mixture("full")
    assert torch.equal(draws(mixture, 50, seed=3), draws(mixture, 50, seed=3))
    assert not torch.equal(draws(mixture, 50, seed=3), draws(mixture, 50, seed=4))


def test_a_permutation_of_the_components_is_the_same_density():
    mixture = known_mixture("full")
    order = [2, 0, 3, 1]
    permuted = type(mixture).from_parameters(
        mixture.weights_[order], mixture.means_[order], mixture.covariances_[order], "full"
    )
    x = draws(mixture, 100)
    torch.testing.assert_close(permuted.score_samples(x), mixture.score_samples(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", TYPES)
def test_bic_and_aic_follow_their_formulas(kind):
    k, dim, n = 4, 3, 500
    mixture = known_mixture(kind, k=k, dim=dim)
    x = draws(mixture, n)
    numbers = {"full": k * dim * (dim + 1) / 2, "tied": dim * (dim + 1) / 2, "diag": k * dim, "spherical": k}[kind]
    numbers += k * dim + k - 1
    likelihood = mixture.score(x) * n
    assert mixture.bic(x) == pytest.approx(-2 * likelihood + numbers * np.log(n), rel=1e-12)
    assert mixture.aic(x) == pytest.approx(-2 * likelihood + 2 * numbers, rel=1e-12)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("spread", [0.5, 30.0])
def test_a_large_mixture_scores_points_as_scipy_does_whether_or_not_components_overlap(kind, spread):
    mixture = known_mixture(kind, k=100, dim=3, spread=spread)
    x = torch.cat([draws(mixture, 300).double() + 50, torch.full((1, 3), 500.0).double()])
    expected = logsumexp(by_scipy(mixture, x.numpy()), axis=1)
    torch.testing.assert_close(mixture.score_samples(x), torch.from_numpy(expected), rtol=1e-11, atol=1e-11)


def test_a_nearly_singular_large_mixture_is_scored_in_full_precision():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(80, 3, generator=generator).double()
    thin = torch.diag(torch.tensor([1.0, 1e-4, 1e-9])).double().expand(80, 3, 3)
    mixture = GaussianMixture.from_parameters(torch.ones(80) / 80, means, thin, "full")
    x = draws(mixture, 200).double()
    expected = logsumexp(by_scipy(mixture, x.numpy()), axis=1)
    torch.testing.assert_close(mixture.score_samples(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_scores_and_gradients_of_the_same_points_agree():
    mixture = known_mixture("full", k=100, dim=3, spread=1.0)
    x = draws(mixture, 50).double()
    torch.testing.assert_close(mixture.score_samples(x.clone().requires_grad_()).detach(), mixture.score_samples(x))


def test_no_points_have_no_scores():
    assert known_mixture("full").score_samples(torch.zeros(0, 3)).shape == (0,)


def test_scoring_many_points_gives_each_the_value_it_has_alone():
    mixture = known_mixture("full", k=70, dim=2)
    x = draws(mixture, 4500).double()
    together = mixture.score_samples(x)
    chosen = [0, 1, 2047, 2048, 4499]
    torch.testing.assert_close(together[chosen], mixture.score_samples(x[chosen]), rtol=1e-11, atol=1e-11)


def test_points_of_the_wrong_width_are_refused():
    with pytest.raises(InputError, match="X: 2 dimensions, where 3 are expected"):
        known_mixture("full").score_samples(torch.zeros(5, 2))


@pytest.mark.parametrize("kind", TYPES)
def test_shares_of_a_point_far_from_all_components_add_up_to_one(kind):
    one = known_mixture(kind, k=1).parameters_
    twins = MixtureDensity(
        replace(
            one,
            weights=torch.tensor([0.25, 0.75], dtype=torch.float64),
            means=one.means.expand(2, -1),
            covariances=one.covariances.expand(1 if kind == "tied" else 2, -1),
        )
    )
    far = torch.tensor([[1e3, 0, 0], [1e10, 1e10, 0], [-1e60, 0, 0]], dtype=torch.float64)
    shares = twins.predict_proba(far)
    torch.testing.assert_close(shares[0], twins.weights)
    torch.testing.assert_close(shares.sum(1), torch.ones(3, dtype=torch.float64))
