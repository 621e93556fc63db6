"""Stepwise EM, and starts from a smaller mixture."""

import pytest
import torch
from support.mixture_cases import draws, fitted, known_mixture

from trainer.mixture import GaussianMixture
from trainer.mixture.em.m_step import grow


@pytest.mark.parametrize("kind", ["full", "diag", "tied"])
def test_stepwise_em_on_batches_comes_near_the_fit_to_all_points(kind):
    truth = known_mixture(kind, k=4, dim=3, spread=6.0)
    x, fresh = draws(truth, 8000), draws(truth, 3000, seed=4)
    stepwise = GaussianMixture(4, covariance_type=kind)
    for batch in x.split(400):
        stepwise.partial_fit(batch)
    assert len(stepwise.history_) == 20
    assert stepwise.score(fresh) > truth.score(fresh) - 0.05


def test_one_batch_of_everything_is_one_em_iteration():
    x = draws(known_mixture("full"), 500)
    start = known_mixture("full", seed=3)
    stepwise = GaussianMixture.from_parameters(start.weights_, start.means_, start.covariances_, "full")
    stepwise.partial_fit(x)
    settings = {"prior_strength": 6.0, "inflation": 1.0, "annealing_iter": 0, "max_iter": 1}
    whole = fitted(x, 4, start=start.parameters_, **settings)
    torch.testing.assert_close(stepwise.covariances_, whole.covariances_, rtol=1e-5, atol=1e-5)


def test_a_grown_mixture_splits_the_heaviest_components_and_keeps_their_mean():
    small = known_mixture("full", k=3)
    large = grow(small.parameters_, 7)
    assert large.n_components == 7
    assert float(large.weights.sum()) == pytest.approx(1)
    assert float(large.weights.max()) < float(small.weights_.max())
    torch.testing.assert_close(large.weights @ large.means, small.weights_ @ small.means_)


def test_a_fit_may_start_from_a_smaller_mixture():
    truth = known_mixture("full", k=8, dim=3, spread=5.0)
    x = draws(truth, 4000)
    small = GaussianMixture(4).fit(x)
    large = fitted(x, 8, start=small.parameters_)
    assert len(large.weights_) == 8
    assert large.score(x) > small.score(x) + 0.1
