"""Covariances L L^T + D against torch.distributions and dense algebra in float64."""

import math

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from eval.residuals.covariance import FactorCovariance, cap, from_dense


def case(d: int = 12, r: int = 4, seed: int = 0) -> tuple[FactorCovariance, torch.Tensor]:
    """A covariance, and 7 residuals of it."""
    generator = torch.Generator().manual_seed(seed)
    covariance = FactorCovariance(
        factor=torch.randn(d, r, generator=generator, dtype=torch.float64),
        diagonal=torch.rand(d, generator=generator, dtype=torch.float64) + 0.1,
    )
    return covariance, covariance.draw(7, generator)


@pytest.mark.parametrize("r", [0, 1, 4, 12])
def test_the_log_density_equals_torch_distributions(r):
    covariance, u = case(r=r)
    zero = torch.zeros(12, dtype=torch.float64)
    dense = MultivariateNormal(zero, covariance.dense)
    torch.testing.assert_close(covariance.log_density(u), dense.log_prob(u), rtol=1e-11, atol=0)
    if r:
        low_rank = LowRankMultivariateNormal(zero, covariance.factor, covariance.diagonal)
        torch.testing.assert_close(covariance.log_density(u), low_rank.log_prob(u), rtol=1e-11, atol=0)
        torch.testing.assert_close(covariance.variance, low_rank.variance)


def test_drawn_residuals_have_the_covariance():
    covariance, _ = case()
    u = covariance.draw(200_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(u.mT @ u / len(u), covariance.dense, rtol=0, atol=0.06)


def test_hidden_pixels_given_visible_ones_are_those_of_the_dense_formula():
    covariance, _ = case()
    visible = torch.arange(12) % 3 > 0
    gain, variance = covariance.given(visible)
    dense = covariance.dense
    expected = dense[~visible][:, visible] @ torch.linalg.inv(dense[visible][:, visible])
    torch.testing.assert_close(gain, expected)
    left = dense[~visible][:, ~visible] - expected @ dense[visible][:, ~visible]
    torch.testing.assert_close(variance, left.diagonal())
    torch.testing.assert_close(covariance.visible(visible).dense, dense[visible][:, visible])


def test_a_dense_covariance_is_kept_as_it_is_where_no_eigenvalue_is_below_the_floor():
    dense = case()[0].dense
    torch.testing.assert_close(from_dense(dense, 0.01).dense, dense)


def test_eigenvalues_below_the_floor_are_raised_to_it_and_the_others_stay():
    dense = case()[0].dense
    before, after = torch.linalg.eigvalsh(dense), torch.linalg.eigvalsh(from_dense(dense, 2.0).dense)
    torch.testing.assert_close(after, before.clamp_min(2.0))


def test_no_image_is_likelier_than_the_cap():
    covariance, _ = case()
    best = covariance.log_density(torch.zeros(1, 12, dtype=torch.float64)).item() - 12 * math.log(0.3)
    assert cap((covariance, case(seed=1)[0]), 0.09) == pytest.approx(
        max(best, case(seed=1)[0].log_density(torch.zeros(1, 12, dtype=torch.float64)).item() - 12 * math.log(0.3))
    )
