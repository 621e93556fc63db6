"""The bounds on log p(x), held against a model whose log p(x) is known."""

import math

import pytest
import torch
from support.linear_gaussian import LinearGaussian
from torch.distributions import Independent, Normal

from eval.images.blocks import image_noise
from eval.measurements import posterior_samples
from eval.measurements.posterior_samples import (
    effective_samples,
    importance_weighted,
    log_mean_exp,
    sample_many,
    sample_posterior,
)
from trainer.objectives.gaussian import log_prior

SHAPE = (1, 4, 4)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    model = LinearGaussian(SHAPE, 3, variance=0.02)
    return model.sample(200, torch.Generator().manual_seed(1))


def test_with_the_true_posterior_one_sample_gives_the_marginal_likelihood(images):
    model = LinearGaussian(SHAPE, 3, variance=0.02)
    bound = importance_weighted(model, images, log_prior, 1, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(bound, model.log_marginal(images), rtol=1e-9, atol=1e-9)


def test_the_bound_rises_to_the_marginal_likelihood_with_the_number_of_samples(images):
    model = LinearGaussian(SHAPE, 3, variance=0.02, stretch=1.5)
    truth = model.log_marginal(images).mean()
    gaps = [
        (truth - importance_weighted(model, images, log_prior, k, generator=torch.Generator().manual_seed(3)).mean())
        for k in (1, 10, 100, 2000)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    assert abs(gaps[3]) < 0.01


def test_the_evidence_lower_bound_lies_below_the_marginal_likelihood_by_the_posterior_divergence(images):
    model = LinearGaussian(SHAPE, 3, variance=0.02, stretch=1.5)
    noise = torch.randn(4000, len(images), 3, generator=torch.Generator().manual_seed(4))
    elbo = sample_posterior(model, images, noise).elbo()
    posterior = LinearGaussian(SHAPE, 3, variance=0.02).encode(images)
    stretched = model.encode(images)
    gap = torch.distributions.kl_divergence(
        Independent(Normal(stretched.mean, stretched.std), 1), Independent(Normal(posterior.mean, posterior.std), 1)
    )
    assert (gap > 0.1).all()
    torch.testing.assert_close(model.log_marginal(images) - elbo, gap, rtol=0, atol=0.2)
    torch.testing.assert_close((model.log_marginal(images) - elbo).mean(), gap.mean(), rtol=0, atol=0.02)


def test_the_prior_is_exchangeable(images):
    # Under the prior N(m, I) the marginal is that of N(0, I) at images moved by -W m.
    model = LinearGaussian(SHAPE, 3, variance=0.02)
    m = torch.tensor([0.3, -0.2, 0.5]).double()
    bound = importance_weighted(
        model, images, lambda z: log_prior(z - m), 3000, generator=torch.Generator().manual_seed(5)
    )
    moved = images - (model.weight @ m).reshape(SHAPE)
    torch.testing.assert_close(bound, model.log_marginal(moved), rtol=0, atol=0.1)


def test_a_brute_force_loop_in_float64_gives_the_same_bound(images):
    model = LinearGaussian(SHAPE, 3, variance=0.02, stretch=0.8)
    few = images[:3]
    bound = importance_weighted(model, few, log_prior, 5, generator=torch.Generator().manual_seed(6))
    noise = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(6)).double()
    posterior = model.encode(few)
    for i in range(3):
        weights = []
        for k in range(5):
            z = posterior.mean[i] + posterior.std[i] * noise[k, i]
            g = model.decode(z[None]).mean[0]
            log_weight = Normal(g, 0.02**0.5).log_prob(few[i]).sum() + Normal(0.0, 1.0).log_prob(z).sum()
            log_weight -= Normal(posterior.mean[i], posterior.std[i]).log_prob(z).sum()
            weights.append(math.exp(log_weight.item()))
        assert bound[i].item() == pytest.approx(math.log(sum(weights) / 5), rel=1e-6)


def test_weights_far_below_the_range_of_exp_keep_their_logarithm():
    log_weights = torch.tensor([[-5000.0], [-5001.0]]).double()
    expected = -5000 + math.log((1 + math.exp(-1)) / 2)
    assert log_mean_exp(log_weights).item() == pytest.approx(expected, rel=1e-12)


def test_integer_pixels_are_refused(images):
    model = LinearGaussian(SHAPE, 3, variance=0.02)
    with pytest.raises(ValueError, match=r"uint8.*\[0, 1\]"):
        importance_weighted(model, images.mul(255).byte(), log_prior, 1)


def test_no_samples_are_refused(images):
    with pytest.raises(ValueError, match="at least 1"):
        importance_weighted(LinearGaussian(SHAPE, 3, variance=0.02), images, log_prior, 0)


def test_equal_weights_are_all_effective_and_one_heavy_weight_is_alone():
    equal = torch.full((20, 1), -4000.0, dtype=torch.float64)
    assert effective_samples(equal).item() == pytest.approx(20)
    equal[3] += 100
    assert effective_samples(equal).item() == pytest.approx(1)


def test_the_effective_number_is_kishs_ratio():
    weights = torch.rand(20, 3, generator=torch.Generator().manual_seed(7)).double()
    expected = weights.sum(0).square() / weights.square().sum(0)
    torch.testing.assert_close(effective_samples(weights.log() - 900), expected)


def test_many_samples_are_drawn_a_few_at_a_time_and_are_the_same_numbers(monkeypatch):
    model = LinearGaussian((1, 4, 4), 3, variance=0.02, stretch=1.5)
    images = model.sample(5, torch.Generator().manual_seed(2))
    whole = sample_posterior(model, images, image_noise(4, range(5), 75, 3))
    monkeypatch.setattr(posterior_samples, "SAMPLES_AT_A_TIME", 16)
    asked = []

    def prior(z):
        asked.append(len(z))
        return log_prior(z)

    parts = sample_many(model, images, [prior], seed=4, indices=range(5), num_samples=75)
    assert max(asked) < 2 * 16 * 5
    assert len(parts.z) == 0
    torch.testing.assert_close(parts.prior_terms(prior), whole.prior_terms(log_prior), rtol=0, atol=0)
    for name in ("log_likelihood", "log_discretised", "log_posterior", "square_error", "posterior_mean", "kl"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=0)
