"""GaussianMixture as a scikit-learn estimator."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture as ScikitMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.mixture_cases import TYPES, draws, known_mixture, plain

from trainer.mixture import GaussianMixture
from trainer.mixture.fitted import FittedMixture

X = draws(known_mixture("full", spread=8.0), 600).numpy().astype("float64")


def test_every_constructor_parameter_is_stored_unchanged():
    given = {"n_components": 0, "tol": "none", "means_init": [[1.0]], "random_state": None}
    parameters = GaussianMixture(**given).get_params()
    assert set(parameters) == set(inspect.signature(GaussianMixture).parameters)
    assert all(parameters[name] is value for name, value in given.items())


def test_a_clone_has_the_parameters_but_not_the_fit():
    mixture = GaussianMixture(3, reg_covar=1e-3, random_state=5).fit(X)
    copy = clone(mixture)
    assert copy.get_params() == mixture.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    assert np.array_equal(copy.fit(X).means_, mixture.means_)


def test_parameters_can_be_set_and_are_printed():
    mixture = GaussianMixture().set_params(n_components=7, covariance_type="diag")
    assert repr(mixture) == "GaussianMixture(covariance_type='diag', n_components=7)"
    with pytest.raises(ValueError, match="Invalid parameter 'components'"):
        mixture.set_params(components=3)


def test_parameters_out_of_range_are_value_errors_of_fit():
    with pytest.raises(ValueError, match="max_iter: -1 is not a whole number of at least 0"):
        GaussianMixture(max_iter=-1).fit(X)


def test_it_is_the_last_step_of_a_pipeline_and_of_a_grid_search():
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(4)).fit(X)
    assert pipeline.predict(X).shape == (600,)
    search = GridSearchCV(GaussianMixture(random_state=1), {"n_components": [1, 4]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 4}


def test_arrays_give_arrays():
    mixture = GaussianMixture(4).fit(X)
    results = [mixture.score_samples(X), mixture.predict(X), mixture.predict_proba(X), *mixture.sample(5)]
    names = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
    assert all(isinstance(value, np.ndarray) for value in [*results, *(getattr(mixture, name) for name in names)])


def test_tensors_give_tensors_of_the_same_numbers():
    by_array, by_tensor = GaussianMixture(4).fit(X), GaussianMixture(4).fit(torch.tensor(X))
    assert isinstance(by_tensor.means_, torch.Tensor)
    assert np.array_equal(by_tensor.means_.numpy(), by_array.means_)
    assert isinstance(by_tensor.sample(3)[0], torch.Tensor)
    # Results are of the kind of the points that they are of, whatever was fitted to.
    assert isinstance(by_array.score_samples(torch.tensor(X)), torch.Tensor)
    assert isinstance(by_tensor.score_samples(X), np.ndarray)


@pytest.mark.parametrize("kind", TYPES)
def test_samples_come_with_the_components_that_they_were_drawn_from(kind):
    mixture = GaussianMixture(4, covariance_type=kind).fit(X)
    samples, components = mixture.sample(400)
    assert samples.shape == (400, 3)
    assert np.mean(mixture.predict(samples) == components) > 0.97
    assert np.array_equal(mixture.sample(400)[0], samples)


def test_fit_predict_is_fit_and_then_predict():
    assert np.array_equal(GaussianMixture(4).fit_predict(X), GaussianMixture(4).fit(X).predict(X))


@pytest.mark.parametrize("kind", TYPES)
def test_precisions_are_inverse_covariances(kind):
    mixture = GaussianMixture(4, covariance_type=kind).fit(X)
    reference = ScikitMixture(4, covariance_type=kind)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        setattr(reference, name, getattr(mixture, name))
    np.testing.assert_allclose(reference.score_samples(X), mixture.score_samples(X), rtol=1e-9)
    if kind in ("full", "tied"):
        product = mixture.covariances_ @ mixture.precisions_
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-9)
    else:
        np.testing.assert_allclose(mixture.covariances_ * mixture.precisions_, 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", TYPES)
def test_maximum_likelihood_from_the_same_start_is_that_of_scikit_learn(kind):
    first = ScikitMixture(4, covariance_type=kind, max_iter=1, random_state=3, tol=0.5).fit(X)
    start = {"weights_init": first.weights_, "means_init": first.means_, "precisions_init": first.precisions_}
    theirs = ScikitMixture(4, covariance_type=kind, tol=1e-12, max_iter=500, **start).fit(X)
    ours = GaussianMixture(4, covariance_type=kind, **plain(tol=1e-14, max_iter=500), **start).fit(X)
    np.testing.assert_allclose(ours.weights_, theirs.weights_, atol=1e-4)
    np.testing.assert_allclose(ours.means_, theirs.means_, atol=1e-4)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, atol=1e-4)
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, abs=1e-6)
    assert ours.lower_bounds_[-1] == ours.lower_bound_


def test_one_given_start_parameter_is_combined_with_k_means():
    means = known_mixture("full", spread=8.0).means_.numpy()
    mixture = GaussianMixture(4, means_init=means, **plain(max_iter=20)).fit(X)
    # Components keep the order of the means that they start from.
    assert np.abs(mixture.means_ - means).max() < 0.5


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"weights_init": [0.5, 0.2]}, "weights_init: The parameter 'weights' should be normalized"),
        ({"means_init": np.zeros((2, 5))}, r"means_init: The parameter 'means' should have the shape of \(2, 3\)"),
        ({"precisions_init": -np.ones((2, 3, 3))}, "precisions_init: 'full precision' should be symmetric, positive"),
    ],
)
def test_impossible_start_parameters_are_refused(start, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, **start).fit(X)


def test_a_warm_start_continues_from_the_last_fit():
    mixture = GaussianMixture(4, warm_start=True, **plain(max_iter=1, tol=1e-12))
    scores = [mixture.fit(X).score(X) for _ in range(5)]
    assert np.diff(scores).min() > -1e-12
    once = GaussianMixture(4, **plain(max_iter=5, tol=1e-12)).fit(X)
    np.testing.assert_allclose(mixture.means_, once.means_, rtol=1e-6)
    with pytest.raises(ValueError, match="X: 2 dimensions, but warm_start continues from 3"):
        mixture.fit(X[:, :2])


def test_a_pickle_is_the_same_mixture():
    mixture = GaussianMixture(4).fit(X)
    assert np.array_equal(pickle.loads(pickle.dumps(mixture)).score_samples(X), mixture.score_samples(X))  # noqa: S301


def test_fit_after_partial_fit_forgets_the_batches():
    mixture = GaussianMixture(4).partial_fit(X[:100]).fit(X)
    np.testing.assert_array_equal(mixture.means_, GaussianMixture(4).fit(X).means_)


def test_partial_fit_after_fit_continues_from_its_parameters():
    fitted = GaussianMixture(4).partial_fit(X[:100]).fit(X)
    once = GaussianMixture.from_fitted(
        FittedMixture(parameters=fitted.parameters_, settings=fitted.settings_, record=None)
    )
    np.testing.assert_array_equal(fitted.partial_fit(X[:200]).means_, once.partial_fit(torch.tensor(X[:200])).means_)


def test_the_first_batches_wait_until_there_are_as_many_points_as_components():
    few_at_a_time = GaussianMixture(5).partial_fit(X[:2]).partial_fit(X[2:4])
    assert not hasattr(few_at_a_time, "parameters_")
    few_at_a_time.partial_fit(X[4:60])
    np.testing.assert_array_equal(few_at_a_time.means_, GaussianMixture(5).partial_fit(X[:60]).means_)


def test_a_batch_of_no_points_does_nothing():
    mixture = GaussianMixture(4).partial_fit(X[:0]).partial_fit(X[:100])
    before = mixture.means_
    assert np.array_equal(mixture.partial_fit(X[:0]).means_, before)
    assert mixture.n_iter_ == 1


def test_partial_fit_with_fewer_components_than_it_has_is_refused():
    with pytest.raises(ValueError, match="n_components: 3, but partial_fit continues from 4"):
        GaussianMixture(4).fit(X).set_params(n_components=3).partial_fit(X)


def test_the_best_of_several_starts_is_kept():
    several = GaussianMixture(4, n_init=4, init_params="random", kmeans_iter=0, **plain(tol=1e-9)).fit(X)
    alone = [
        GaussianMixture(4, random_state=seed, init_params="random", kmeans_iter=0, **plain(tol=1e-9)).fit(X)
        for seed in range(4)
    ]
    assert several.lower_bound_ == max(mixture.lower_bound_ for mixture in alone)


def test_no_iterations_leave_the_start():
    start = ScikitMixture(4, max_iter=1, tol=0.5, random_state=3).fit(X)
    given = {"weights_init": start.weights_, "means_init": start.means_, "precisions_init": start.precisions_}
    mixture = GaussianMixture(4, max_iter=0, **given).fit(X)
    np.testing.assert_allclose(mixture.means_, start.means_, rtol=1e-12)
    np.testing.assert_allclose(mixture.covariances_, start.covariances_, rtol=1e-6)
    assert mixture.n_iter_ == 0


def test_it_is_cross_validated_and_copied_to_workers():
    scores = cross_val_score(GaussianMixture(4), X, cv=3, n_jobs=2)
    assert np.isfinite(scores).all()
