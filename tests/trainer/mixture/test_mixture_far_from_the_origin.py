"""Points whose mean or spread is large beside the width of a cluster, against scipy and scikit-learn in float64."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ScikitMixture
from support.mixture_cases import TYPES, plain

from trainer.mixture import GaussianMixture
from trainer.mixture.em import dense
from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.points import Points, second_moment
from trainer.process_group import single


def problem(kind: str, k: int, dim: int, offset: float, spread: float, condition: float, seed: int):
    """Weights, means, covariances in scikit-learn's shape, all (K, D, D) covariances, and 40 points a component.

    Standard deviations are of the order of 1; means are `spread` apart around `offset`; each covariance matrix has the
    condition number `condition`.
    """
    rng = np.random.default_rng(seed)
    means = offset + spread * rng.standard_normal((k, dim))
    eigenvalues = np.geomspace(condition**-0.5, condition**0.5, dim) if dim > 1 else np.ones(1)
    bases = [np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(k)]
    covariances = {
        "full": np.stack([(q * eigenvalues) @ q.T for q in bases]),
        "tied": (bases[0] * eigenvalues) @ bases[0].T,
        "diag": np.stack([rng.permutation(eigenvalues) for _ in range(k)]),
        "spherical": rng.uniform(0.5, 2, k),
    }[kind]
    every = {
        "full": lambda: covariances,
        "tied": lambda: np.broadcast_to(covariances, (k, dim, dim)),
        "diag": lambda: np.stack([np.diag(c) for c in covariances]),
        "spherical": lambda: np.stack([c * np.eye(dim) for c in covariances]),
    }[kind]()
    weights = rng.uniform(0.5, 1.5, k)
    points = np.concatenate(
        [m + rng.standard_normal((40, dim)) @ np.linalg.cholesky(c).T for m, c in zip(means, every, strict=True)]
    )
    return weights / weights.sum(), means, covariances, every, points


def log_density(points, weights, means, every):
    parts = [
        np.log(w) + multivariate_normal(np.zeros(len(m)), c, allow_singular=True).logpdf(points - m)
        for w, m, c in zip(weights, means, every, strict=True)
    ]
    return logsumexp(np.reshape(parts, (len(weights), -1)), axis=0)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(TYPES),
    k=st.sampled_from([1, 2, 7, 30, 200]),
    dim=st.sampled_from([1, 2, 5, 16]),
    offset=st.sampled_from([0.0, 10.0, 1e3, 1e5, 1e8]),
    spread=st.sampled_from([1.0, 1e2, 1e4, 1e7]),
    condition=st.sampled_from([1.0, 1e4, 1e8]),
    seed=st.integers(0, 1000),
)
def test_log_densities_are_those_of_scipy_to_1e_3_nats(kind, k, dim, offset, spread, condition, seed):
    weights, means, covariances, every, points = problem(kind, k, dim, offset, spread, condition, seed)
    mixture = GaussianMixture.from_parameters(weights, means, covariances, kind)
    far = points[:5] + 100 * spread  # far from every component
    for x in (points[:: max(1, len(points) // 400)], far):
        expected = log_density(x, weights, means, every)
        # Beyond 1e-3 nats, the last digits of a float64 of that size, as the condition number magnifies them.
        np.testing.assert_allclose(mixture.score_samples(x), expected, atol=1e-3, rtol=1e-14 * max(condition, 1e4))


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(TYPES),
    k=st.sampled_from([1, 3, 10]),
    offset=st.sampled_from([0.0, 1e3, 1e5, 1e8]),
    spread=st.sampled_from([30.0, 1e4, 1e7]),
    seed=st.integers(0, 1000),
)
def test_a_maximum_likelihood_fit_is_that_of_scikit_learn(kind, k, offset, spread, seed):
    # scikit-learn's other covariances are differences of squares, which at this spread have few digits left.
    assume(kind == "full" or spread < 1e7)
    weights, means, _, _, points = problem(kind, k, 3, 0.0, spread, 10.0, seed)
    start = {
        "weights_init": weights,
        "means_init": means + offset,
        "precisions_init": GaussianMixture.from_parameters(
            *problem(kind, k, 3, 0.0, spread, 1.0, seed)[:3], kind
        ).precisions_,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # scikit-learn without the offset, which would cost it digits.
        theirs = ScikitMixture(k, covariance_type=kind, tol=1e-10, max_iter=60, **start | {"means_init": means}).fit(
            points
        )
        ours = GaussianMixture(k, covariance_type=kind, **plain(tol=1e-14, max_iter=60), **start).fit(points + offset)
    digits = max(1e-4, 1e-15 * offset)  # of the points themselves
    np.testing.assert_allclose(ours.weights_, theirs.weights_, atol=1e-4)
    np.testing.assert_allclose(ours.means_ - offset, theirs.means_, rtol=1e-9, atol=digits)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TYPES)
def test_one_far_point_does_not_change_what_the_others_are_fitted_to(kind):
    _, _, _, _, points = problem(kind, 3, 3, 0.0, 20.0, 4.0, 0)
    points = np.concatenate([points, np.full((1, 3), 1e9)])
    score = GaussianMixture(4, covariance_type=kind, **plain()).fit(points).score_samples(points[:-1]).mean()
    reference = ScikitMixture(4, covariance_type=kind, random_state=0, n_init=5).fit(points)
    assert score > reference.score_samples(points[:-1]).mean() - 0.05


@pytest.mark.parametrize("gaussians", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_statistics_are_the_same_in_every_number_format(kind, gaussians):
    weights, means, covariances, _, points = problem(kind, 12, 4, 0.0, 3.0, 5.0, 1)
    parameters = GaussianMixture.from_parameters(weights, means, covariances, kind).parameters_
    x = torch.tensor(points)
    given_points = Points(x, torch.rand(x.shape, dtype=torch.float64) if gaussians else None)
    made = {}
    for products in ("float32", "float64", "centred"):
        e_step = DenseEStep(given_points, given_points, second_moment(given_points, single()), products)
        statistics = e_step.statistics(parameters, 0.7)
        made[products] = (statistics.about(None, kind), e_step.held_out(parameters, (1.0, 1.2)))
    for products, tolerance in (("float32", 1e-4), ("float64", 1e-10)):
        torch.testing.assert_close(made[products][0].sums, made["centred"][0].sums, rtol=tolerance, atol=10 * tolerance)
        torch.testing.assert_close(made[products][0].common, made["centred"][0].common, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(made[products][1], made["centred"][1], rtol=tolerance, atol=tolerance)


def test_a_large_problem_takes_the_fastest_format_that_holds_it(monkeypatch):
    chosen = []
    monkeypatch.setattr(dense, "centred_statistics", lambda *a, **k: chosen.append("centred"))
    monkeypatch.setattr(dense, "dense_statistics", lambda points, scores, sparse: chosen.append(str(scores.dtype)[6:]))
    for width in (0.3, 1e-4, 1e-8):
        parameters = GaussianMixture.from_parameters(
            [1.0], np.zeros((1, 2)), np.full((1, 2), width**2), "diag"
        ).parameters_
        DenseEStep(Points(torch.randn(50, 2)), None, torch.ones(2, dtype=torch.float64), "auto").statistics(
            parameters, 1.0
        )
    assert chosen == ["float32", "float64", "centred"]


def test_points_in_float64_again_are_made_of_the_data_not_of_rounded_numbers():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[200:] = 1e-6 * x[200:] + 1.0  # one cluster is a millionth of the other
    mixture = GaussianMixture(2, covariance_type="diag", **plain(products="auto", reg_covar=0.0)).fit(x)
    narrow = int(mixture.covariances_[:, 0].argmin())
    np.testing.assert_allclose(mixture.covariances_[narrow], x[200:].var(0, correction=0), rtol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_errors_of_every_method(value):
    mixture = GaussianMixture.from_parameters(torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2), "diag")
    bad = torch.tensor([[0.0, value]])
    for method in (mixture.score_samples, mixture.predict, mixture.predict_proba, mixture.score):
        with pytest.raises(ValueError, match="some values are NaN or infinite"):
            method(bad)


@pytest.mark.parametrize("kind", TYPES)
def test_responsibilities_of_many_components_are_those_of_all_of_them(kind):
    weights, means, covariances, every, points = problem(kind, 200, 5, 0.0, 2.0, 5.0, 3)
    mixture = GaussianMixture.from_parameters(weights, means, covariances, kind)
    x = np.concatenate([points[:300], points[:3] + 1e4])
    logits = np.stack(
        [np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in zip(weights, means, every, strict=True)], 1
    )
    np.testing.assert_allclose(mixture.predict_proba(x), np.exp(logits - logsumexp(logits, axis=1)[:, None]), atol=1e-9)
    assert np.array_equal(mixture.predict(x), logits.argmax(1))
