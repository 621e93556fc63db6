"""The truncated E-step against the exact one."""

import pytest
import torch
from support.mixture_cases import TYPES, draws, known_mixture, plain

from trainer.mixture import GaussianMixture
from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.em.truncated import TruncatedEStep
from trainer.mixture.points import Points, second_moment
from trainer.process_group import single


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("gaussians", [False, True])
def test_with_every_component_a_candidate_it_is_the_exact_one(kind, gaussians):
    truth = known_mixture(kind, k=10, dim=4, spread=2.0)
    x = draws(truth, 400).double()
    points = Points(x, torch.rand(400, 4, dtype=torch.float64) if gaussians else None)
    moment = second_moment(points, single())
    exact = DenseEStep(points, points, moment, "float64")
    truncated = TruncatedEStep(points, points, moment, "float64", width=12)
    for beta in (1.0, 0.3):
        a, b = exact.statistics(truth.parameters_, beta), truncated.statistics(truth.parameters_, beta)
        torch.testing.assert_close(b.totals, a.totals, rtol=1e-12, atol=1e-9)
        # Pairs of responsibility below 1e-4 are left out, at most 10 of each point.
        torch.testing.assert_close(b.counts, a.counts, rtol=2e-3, atol=0.05)
    inflations = (1.0, 1.4)
    torch.testing.assert_close(
        truncated.held_out(truth.parameters_, inflations),
        exact.held_out(truth.parameters_, inflations),
        rtol=1e-12,
        atol=0,
    )


def test_held_out_likelihoods_of_inflated_covariances_are_those_of_the_inflated_mixture():
    truth = known_mixture("full", k=10, dim=4, spread=2.0)
    x = draws(truth, 100).double()
    exact = DenseEStep(Points(x), Points(x), second_moment(Points(x), single()), "float64")
    sums = exact.held_out(truth.parameters_, (0.8, 1.5)).sum(0)
    for factor, total in zip((0.8, 1.5), sums.tolist(), strict=True):
        inflated = GaussianMixture.from_parameters(truth.weights_, truth.means_, factor * truth.covariances_, "full")
        assert total == pytest.approx(inflated.score(x) * 100, rel=1e-10)


def test_a_truncated_fit_is_as_good_as_an_exact_one():
    truth = known_mixture("full", k=60, dim=8, spread=2.0)
    x, fresh = draws(truth, 6000), draws(truth, 3000, seed=5)
    exact = GaussianMixture(60, candidates=0, max_iter=8, annealing_iter=0).fit(x)
    truncated = GaussianMixture(60, candidates=16, max_iter=8, annealing_iter=0).fit(x)
    assert truncated.score(fresh) == pytest.approx(exact.score(fresh), abs=0.06)
    assert exact.truncation_loss_ is None
    assert 0 <= truncated.truncation_loss_ < 0.05


def test_what_truncation_leaves_out_is_a_loss_of_likelihood():
    truth = known_mixture("full", k=60, dim=2, spread=0.3)
    x = draws(truth, 1000)
    fit = GaussianMixture(60, **plain(candidates=8, max_iter=2, prior_strength=4.0)).fit(x)
    assert fit.truncation_loss_ > 1e-3
