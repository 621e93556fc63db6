"""The families of p(x|z) against torch.distributions and scipy, in float64."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Laplace, Normal, StudentT

from data_shards.io.errors import InputError
from eval.measurements.discretised import log_discretised_likelihood
from eval.measurements.quantiles import half_widths, log_cdf
from trainer.config.config import load_config
from trainer.config.sections import ModelConfig
from trainer.networks.model import Likelihood, SigmaVAE
from trainer.objectives import families

NU = families.DEGREES_OF_FREEDOM
TORCH = {
    "gaussian": lambda mean, std: Normal(mean, std),
    "laplace": lambda mean, std: Laplace(mean, std / math.sqrt(2)),
    "student_t": lambda mean, std: StudentT(NU, mean, std * math.sqrt((NU - 2) / NU)),
}
SCIPY = {
    "gaussian": scipy.stats.norm(),
    "laplace": scipy.stats.laplace(scale=1 / math.sqrt(2)),
    "student_t": scipy.stats.t(NU, scale=math.sqrt((NU - 2) / NU)),
}
FAMILIES = list(TORCH)


def images(seed: int) -> torch.Tensor:
    return torch.rand(5, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_likelihood_of_a_family_equals_torch_distributions_with_that_variance(family):
    x, mean, variance = images(0), images(1), images(2) + 0.01
    density = TORCH[family](mean, variance.sqrt())
    torch.testing.assert_close(density.variance, variance)
    expected = density.log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(families.log_likelihood(x, Likelihood(mean, variance, family)), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_image_is_likelier_than_the_cap(family):
    x, floor = images(0), 0.004
    best = families.log_likelihood(x, Likelihood(x, torch.full_like(x, floor), family))
    assert families.cap(24, floor, family) == pytest.approx(best[0].item(), rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_distribution_functions_and_intervals_equal_scipy(family):
    u = torch.linspace(-8, 8, 41, dtype=torch.float64)
    np.testing.assert_allclose(log_cdf(u, family).numpy(), SCIPY[family].logcdf(u.numpy()), rtol=1e-9)
    levels = (0.5, 0.9, 0.99)
    expected = [SCIPY[family].interval(level)[1] for level in levels]
    np.testing.assert_allclose(half_widths(levels, family).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probabilities_of_the_256_levels_of_a_pixel_sum_to_one(family):
    x = (torch.arange(256, dtype=torch.float64) / 255).view(256, 1, 1, 1)
    mean, variance = torch.full_like(x, 0.3), torch.full_like(x, 0.02)
    assert log_discretised_likelihood(x, mean, variance, family).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_network_has_the_family_in_stage_2_only():
    config = ModelConfig(encoder_channels=(4,), decoder_channels=(4,), hidden=0, latent_dim=2)
    model = SigmaVAE((1, 8, 8), config, family="laplace")
    z = torch.zeros(3, 2)
    assert model.decode(z).family == "gaussian"
    model.add_variance_head(0.1)
    assert model.decode(z).family == "laplace"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"variance.family": "cauchy"}, "variance.family"),
        ({"variance.family": "laplace", "variance.beta_nll": 0.5}, "variance.beta_nll"),
        ({"variance.family": "laplace", "stage2.max_epochs": 0}, "variance.family"),
        ({"variance.family": "student_t", "objective.name": "vae"}, "variance.family"),
    ],
)
def test_a_family_that_would_not_act_is_refused(fields, named):
    with pytest.raises(InputError) as refused:
        load_config(None, fields)
    assert refused.value.parameter == named
