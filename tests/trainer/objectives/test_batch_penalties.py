"""DIP-VAE's penalty against numpy.cov, WAE's MMD against double loops."""

import numpy as np
import pytest
import torch

from trainer.config.config import Config
from trainer.config.sections import ModelConfig, ObjectiveConfig
from trainer.engines.engine import LearningRates
from trainer.objectives.dip_vae import covariance, dip_penalty
from trainer.objectives.objective import LocalBatch
from trainer.objectives.wae_mmd import mmd
from trainer.process_group import single
from trainer.updates.learner import build_engine


def rows(seed: int, n: int = 9, width: int = 3) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_covariance_equals_numpy_with_division_by_n():
    np.testing.assert_allclose(covariance(rows(0)).numpy(), np.cov(rows(0).numpy().T, bias=True), rtol=1e-12)


def test_dip_penalty_of_the_first_kind_is_the_sum_over_the_covariance_of_means():
    mean, std = rows(0), rows(1).abs()
    c = np.cov(mean.numpy().T, bias=True)
    expected = sum(
        (30.0 * (c[i, j] - 1) ** 2 if i == j else 3.0 * c[i, j] ** 2) for i in range(len(c)) for j in range(len(c))
    )
    found = dip_penalty(mean, std, second_kind=False, off_diagonal=3.0, diagonal=30.0)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12)


def test_dip_penalty_of_the_second_kind_adds_the_mean_posterior_variance():
    mean, std = rows(0), rows(1).abs()
    c = np.cov(mean.numpy().T, bias=True) + np.diag((std.numpy() ** 2).mean(0))
    expected = 3.0 * ((c**2).sum() - (np.diag(c) ** 2).sum()) + 3.0 * ((np.diag(c) - 1) ** 2).sum()
    found = dip_penalty(mean, std, second_kind=True, off_diagonal=3.0, diagonal=3.0)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12)


def test_mmd_equals_a_loop_over_all_pairs():
    z, prior = rows(0).numpy(), rows(1).numpy() + 0.3
    n, width = z.shape

    def kernel(a, b):
        square = float(((a - b) ** 2).sum())
        return sum(2 * width * s / (2 * width * s + square) for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += (kernel(z[i], z[j]) + kernel(prior[i], prior[j])) / (n * (n - 1))
            total -= 2 * kernel(z[i], prior[j]) / n**2
    np.testing.assert_allclose(mmd(torch.from_numpy(z), torch.from_numpy(prior)).item(), total, rtol=1e-9)


def test_mmd_of_far_apart_samples_exceeds_that_of_equal_distributions():
    assert mmd(rows(0, 200) + 3, rows(1, 200)) > 10 * mmd(rows(2, 200), rows(1, 200)).abs()


@pytest.mark.parametrize("name", ["dip_vae_i", "dip_vae_ii", "wae_mmd"])
def test_an_update_runs_the_encoder_once_and_moves_batch_norm_once(name):
    fields = {"encoder_channels": (4, 8), "decoder_channels": (8, 4), "hidden": 8, "latent_dim": 3, "norm": "batch"}
    config = Config(objective=ObjectiveConfig(name=name), model=ModelConfig(**fields), device="cpu")
    engine = build_engine(config, (1, 8, 8), single())
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    noise, prior = torch.randn(2, 6, 3)
    batch = LocalBatch(images=images, noise=noise, prior=prior, start=0, rows=6, kl_weight=torch.ones(()))
    first = engine.objective.model.encoder[0](images / 255)
    rates = LearningRates(networks=1e-3, log_variance=1e-2, variance_head=1e-3)
    engine.step(batch, learning_rates=rates, signals=torch.zeros(2))
    moved = engine.objective.model.encoder[1].running_mean
    torch.testing.assert_close(moved, 0.1 * first.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
