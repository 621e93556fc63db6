"""Gaussian terms against torch.distributions and literal sums in float64."""

import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from trainer.objectives import gaussian
from trainer.objectives.objective import beta_nll


def images(seed: int) -> torch.Tensor:
    return torch.rand(5, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_likelihood_with_one_variance_equals_torch_distributions():
    x, mean, variance = images(0), images(1), torch.tensor([0.03], dtype=torch.float64)
    expected = Independent(Normal(mean, variance.sqrt().item()), 3).log_prob(x)
    torch.testing.assert_close(gaussian.log_likelihood(x, mean, variance), expected, rtol=1e-12, atol=0)


def test_log_likelihood_with_one_variance_is_equation_7_term_by_term():
    x, mean, sigma = images(0), images(1), 0.2
    d = x[0].numel()
    for row in range(len(x)):
        square = sum((a - b) ** 2 for a, b in zip(mean[row].flatten().tolist(), x[row].flatten().tolist(), strict=True))
        expected = -d / 2 * math.log(2 * math.pi) - d * math.log(sigma) - square / (2 * sigma**2)
        found = gaussian.log_likelihood(x, mean, torch.tensor([sigma**2], dtype=torch.float64))[row].item()
        assert math.isclose(found, expected, rel_tol=1e-12)


def test_log_likelihood_with_a_variance_a_pixel_equals_torch_distributions():
    x, mean, variance = images(0), images(1), images(2) + 0.01
    expected = Independent(Normal(mean, variance.sqrt()), 3).log_prob(x)
    torch.testing.assert_close(gaussian.log_likelihood(x, mean, variance), expected, rtol=1e-12, atol=0)


def test_log_likelihood_of_no_images_is_empty():
    assert gaussian.log_likelihood(images(0)[:0], images(1)[:0], torch.tensor([0.1])).shape == (0,)


def test_kl_to_prior_equals_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    std = torch.rand(7, 4, generator=generator, dtype=torch.float64) + 0.01
    expected = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), torch.ones_like(std))).sum(1)
    torch.testing.assert_close(gaussian.kl_to_prior(mean, std), expected, rtol=1e-12, atol=0)


def test_log_normal_and_log_prior_equal_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    z, mean = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    std = torch.rand(7, 4, generator=generator, dtype=torch.float64) + 0.01
    torch.testing.assert_close(gaussian.log_normal(z, mean, std), Normal(mean, std).log_prob(z).sum(1))
    torch.testing.assert_close(gaussian.log_prior(z), Normal(0.0, 1.0).log_prob(z).sum(1))


def test_the_closed_form_variance_maximises_the_likelihood():
    x, mean = images(0), images(1)
    best = gaussian.closed_form_variance((x - mean).square().sum(), x.numel())
    log_variance = best.log().clone().reshape(1).requires_grad_()
    total = gaussian.log_likelihood(x, mean, log_variance.exp()).sum()
    (slope,) = torch.autograd.grad(total, log_variance, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), log_variance)
    assert abs(slope.item()) < 1e-9
    assert bend.item() < 0


def test_no_image_is_likelier_than_the_cap_of_its_variance_floor():
    x, floor = images(0), 0.005
    variance = images(2) + floor
    cap = gaussian.variance_floor_cap(x[0].numel(), floor)
    assert (gaussian.log_likelihood(x, x, variance) < cap).all()
    torch.testing.assert_close(
        gaussian.log_likelihood(x, x, torch.tensor([floor], dtype=torch.float64)), torch.full((5,), cap).double()
    )


def test_beta_nll_of_exponent_0_is_the_log_likelihood():
    x, mean, variance = images(0), images(1), images(2) + 0.01
    found = beta_nll(x, mean, variance, torch.tensor([0.03], dtype=torch.float64), 0.0)
    torch.testing.assert_close(found, gaussian.log_likelihood(x, mean, variance), rtol=1e-12, atol=0)


def test_beta_nll_of_exponent_1_gives_the_mean_the_gradients_of_one_variance():
    x, variance, dataset_variance = images(0), images(2) + 0.01, torch.tensor([0.03], dtype=torch.float64)
    means = images(1).requires_grad_(), images(1).requires_grad_()
    beta_nll(x, means[0], variance, dataset_variance, 1.0).sum().backward()
    gaussian.log_likelihood(x, means[1], dataset_variance).sum().backward()
    torch.testing.assert_close(means[0].grad, means[1].grad, rtol=1e-12, atol=0)


def test_under_any_exponent_the_best_variance_of_a_pixel_is_its_square_error():
    x, mean = images(0), images(1)
    variance = (x - mean).square().requires_grad_()
    beta_nll(x, mean, variance, torch.tensor([0.03], dtype=torch.float64), 0.7).sum().backward()
    torch.testing.assert_close(variance.grad, torch.zeros_like(x), rtol=0, atol=1e-9)
