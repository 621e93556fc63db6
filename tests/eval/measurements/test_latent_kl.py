"""KL(q_hat || p) by sampling, held against the closed form of one Gaussian."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from eval.measurements.latent_divergence import latent_kl
from trainer.objectives.gaussian import log_prior
from trainer.process_group import single


class OneGaussian:
    """A mixture of one component."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        self.density = MultivariateNormal(mean, covariance)

    def sample(self, n, generator=None):
        noise = torch.randn(n, len(self.density.mean), generator=generator).double()
        return self.density.mean + noise @ self.density.scale_tril.T

    def score_samples(self, z):
        return self.density.log_prob(z)


@pytest.fixture
def gaussian() -> OneGaussian:
    root = torch.tensor([[0.8, 0.0, 0.0], [0.3, 0.6, 0.0], [-0.2, 0.1, 1.1]]).double()
    return OneGaussian(torch.tensor([0.5, -1.0, 0.2]).double(), root @ root.T)


def test_one_gaussian_has_its_closed_form_divergence(gaussian):
    expected = kl_divergence(gaussian.density, MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double()))
    runs = latent_kl(gaussian, log_prior, single(), num_samples=10_000, runs=10)
    standard_error = runs.std() / len(runs) ** 0.5
    assert abs(runs.mean() - expected) < 4 * standard_error
    assert standard_error < 0.01


def test_the_prior_itself_has_no_divergence():
    standard = OneGaussian(torch.zeros(3).double(), torch.eye(3).double())
    assert latent_kl(standard, log_prior, single(), num_samples=100, runs=2).abs().max() < 1e-12


def test_the_same_seed_gives_the_same_runs_and_another_seed_others(gaussian):
    first, again, other = (
        latent_kl(gaussian, log_prior, single(), num_samples=100, runs=3, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
