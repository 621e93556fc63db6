"""EM step by step against scikit-learn from the same start, and its densities."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference
from support.mixture_cases import TYPES, draws, fitted, known_mixture, plain, to_sklearn

from trainer.mixture import GaussianMixture

ITERATIONS = 8


def reference_steps(start: GaussianMixture, x: np.ndarray, kind: str) -> tuple[list[float], Reference]:
    """Mean log-likelihood before each M-step of scikit-learn, and the model after the last."""
    model = to_sklearn(start)
    lower_bounds = []
    for _ in range(ITERATIONS):
        lower_bounds.append(model.score(x))
        step = Reference(
            len(model.weights_),
            covariance_type=kind,
            max_iter=1,
            weights_init=model.weights_,
            means_init=model.means_,
            precisions_init=model.precisions_,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = step.fit(x)
    return lower_bounds, model


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("products", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
def test_every_iteration_has_the_log_likelihood_of_scikit_learn(kind, products, tolerance):
    x = draws(known_mixture(kind, k=5, dim=4, spread=1.5), 600).double()
    start = known_mixture(kind, k=5, dim=4, spread=1.5, seed=7)
    expected, last = reference_steps(start, x.numpy(), kind)
    settings = plain(products=products, max_iter=ITERATIONS, tol=1e-15)
    mixture = fitted(x, 5, start=start.parameters_, covariance_type=kind, **settings)
    ours = [record["log_likelihood"] for record in mixture.history_]
    np.testing.assert_allclose(ours, expected, rtol=tolerance)
    final = mixture.score(x)
    assert final >= ours[-1]
    assert mixture.n_iter_ == ITERATIONS
    assert final == pytest.approx(last.score(x.numpy()), rel=tolerance)


@pytest.mark.parametrize("kind", TYPES)
def test_scikit_learn_scores_the_parameters_as_ours_does(kind):
    mixture = known_mixture(kind)
    x = draws(mixture, 300).double()
    model = to_sklearn(mixture)
    np.testing.assert_allclose(model.score_samples(x.numpy()), mixture.score_samples(x).numpy(), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(x.numpy()), mixture.predict_proba(x).numpy(), atol=1e-9)
    back = GaussianMixture.from_parameters(model.weights_, model.means_, model.covariances_, kind)
    for name in ("weights_", "means_", "covariances_"):
        assert np.array_equal(getattr(back, name), getattr(mixture, name))


@pytest.mark.parametrize("kind", TYPES)
def test_bic_agrees_with_scikit_learn(kind):
    mixture = known_mixture(kind)
    x = draws(mixture, 300).double()
    assert mixture.bic(x) == pytest.approx(to_sklearn(mixture).bic(x.numpy()), rel=1e-9)
