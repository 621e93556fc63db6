"""The probability of 8-bit pixels under a Gaussian."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from eval.measurements.discretised import bits_per_dimension, log_discretised_likelihood, log_interval_probability

LEVELS = torch.arange(256).double() / 255


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.03), (0.5, 0.2), (0.97, 0.005), (1.0, 1.0)])
def test_the_probabilities_of_the_256_levels_sum_to_one(mean, std):
    x = LEVELS.reshape(256, 1, 1, 1)
    log_p = log_discretised_likelihood(x, torch.full_like(x, mean), torch.tensor([std**2]))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
def test_a_level_has_the_integral_of_the_density_over_its_bin(level):
    mean, std = 0.4, 0.25
    low = -np.inf if level == 0 else (level - 0.5) / 255
    high = np.inf if level == 255 else (level + 0.5) / 255
    expected, _ = integrate.quad(stats.norm(mean, std).pdf, low, high, epsabs=1e-13)
    x = torch.full((1, 1, 1, 1), level / 255)
    log_p = log_discretised_likelihood(x, torch.full_like(x, mean), torch.full_like(x, std**2))
    assert log_p.item() == pytest.approx(math.log(expected), rel=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_far_tails_keep_their_logarithm_on_both_sides(sign):
    # 40 standard deviations out the probability is about exp(-800), far below the smallest float64.
    ends = sorted([sign * 40.0, sign * 40.5])
    log_p = log_interval_probability(torch.tensor(ends[0]).double(), torch.tensor(ends[1]).double())
    reference = stats.norm.logcdf(-40) + np.log1p(-np.exp(stats.norm.logcdf(-40.5) - stats.norm.logcdf(-40)))
    assert log_p.item() == pytest.approx(reference, rel=1e-12)


def test_narrow_bins_approach_the_density_times_the_width():
    x = torch.full((1, 1, 2, 2), 128 / 255)
    log_p = log_discretised_likelihood(x, torch.full_like(x, 0.3), torch.tensor([1.0]))
    density = stats.norm(0.3, 1).logpdf(128 / 255) * 4
    assert log_p.item() == pytest.approx(density - 4 * math.log(255), rel=1e-6)


def test_images_are_summed_over_pixels_and_not_averaged():
    x = LEVELS[:12].reshape(1, 3, 2, 2)
    together = log_discretised_likelihood(x, x, torch.tensor([0.01]))
    apart = [log_discretised_likelihood(p.reshape(1, 1, 1, 1), p, torch.tensor([0.01])) for p in x.flatten()]
    assert together.item() == pytest.approx(sum(p.item() for p in apart), rel=1e-12)


def test_a_uniform_guess_over_256_levels_costs_eight_bits():
    nats = torch.tensor(-784 * math.log(256), dtype=torch.float64)
    assert bits_per_dimension(nats, 784).item() == pytest.approx(8, rel=1e-12)
