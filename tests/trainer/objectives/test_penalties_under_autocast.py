"""Penalties are small differences of products: float32 also where the networks run in bfloat16."""

import pytest
import torch

from trainer.config.sections import ModelConfig, ObjectiveConfig, VarianceConfig
from trainer.networks.model import SigmaVAE
from trainer.objectives.objective import LocalBatch, Objective


class Watched:
    """A penalty that keeps what it was called with."""

    def __init__(self, penalty):
        self.penalty = penalty

    def __getattr__(self, name):
        return getattr(self.penalty, name)

    def __call__(self, rows, prior):
        self.rows, self.prior, self.value = rows, prior, self.penalty(rows, prior)
        (self.gradient,) = torch.autograd.grad(self.value, rows, retain_graph=True)
        return self.value


@pytest.mark.parametrize("name", ["dip_vae_i", "dip_vae_ii", "wae_mmd"])
def test_the_gradient_of_a_penalty_under_autocast_is_that_of_float64(name):
    torch.manual_seed(0)
    config = ModelConfig(latent_dim=6, encoder_channels=(8,), decoder_channels=(8, 8), hidden=16)
    objective = Objective(SigmaVAE((1, 8, 8), config), ObjectiveConfig(name=name), VarianceConfig())
    # Near DIP's optimum: latents of unit variance, whose penalty is a sum of small numbers.
    torch.nn.init.normal_(objective.model.to_posterior.weight, std=0.5)
    watched = objective.penalty = Watched(objective.penalty)
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    noise, prior = torch.randn(2, 64, 6)
    batch = LocalBatch(images=images, noise=noise, prior=prior, start=0, rows=64, kl_weight=torch.ones(()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(batch, None)
    assert {value.dtype for value in terms} == {torch.float32}
    rows = watched.rows.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(watched.penalty(rows, watched.prior.double()), rows)
    assert (watched.gradient - exact).norm() < 1e-4 * exact.norm()
