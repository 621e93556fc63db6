"""Draws from the prior and from mixtures: the right distribution, the same on whichever process draws them."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture as ScikitMixture

from data_shards.io.errors import InputError
from eval.images.blocks import BLOCK, block_ids, blocks_of
from eval.images.sources import mixture_sampler, prior_sampler
from trainer.mixture.density import MixtureDensity
from trainer.mixture.parameters import Parameters
from trainer.noise import seeded_generator
from trainer.process_group import Ranks, single

D, K = 3, 5


def mixture(covariance_type):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(K, D, D)) / 2
    full = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(D)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2).copy(),
        "spherical": full[:, 0, 0].copy(),
    }[covariance_type]
    weights = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    tensors = [torch.tensor(a) for a in (weights, rng.normal(size=(K, D)) * 2, covariances)]
    return MixtureDensity(Parameters.of(covariance_type, *tensors))


def draws(sampler, blocks):
    return torch.cat([sampler(seeded_generator(0, "samples", block)) for block in range(blocks)])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_draws_have_the_distribution_of_scikit_learns_mixture(covariance_type):
    made = mixture(covariance_type)
    ours = draws(mixture_sampler(made.parameters), 80).numpy()
    theirs = ScikitMixture(K, covariance_type=covariance_type, random_state=1)
    theirs.weights_, theirs.means_, theirs.covariances_ = (
        t.numpy() for t in (made.weights, made.means, made.covariances)
    )
    reference = theirs.sample(len(ours))[0]
    # Along any direction the two one-dimensional samples come from one distribution.
    for direction in np.random.default_rng(2).normal(size=(4, D)):
        assert stats.ks_2samp(ours @ direction, reference @ direction).pvalue > 1e-3


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_temperature_scales_the_deviations_around_the_means_of_the_same_draws(covariance_type):
    parameters = mixture(covariance_type).parameters
    at = {temperature: draws(mixture_sampler(parameters, temperature), 4) for temperature in (0.0, 0.5, 1.0)}
    assert all(bool((mean == parameters.means.float()).all(1).any()) for mean in at[0.0])
    torch.testing.assert_close(at[0.5] - at[0.0], 0.5 * (at[1.0] - at[0.0]), atol=1e-5, rtol=1e-5)


def test_a_component_of_weight_zero_is_never_drawn():
    made = mixture("spherical")
    made.parameters.means[4] = 1e6
    assert draws(mixture_sampler(made.parameters), 40).abs().max() < 1e3


def test_the_prior_is_standard_normal():
    flat = draws(prior_sampler(D), 80).flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3


def test_draws_of_neighbouring_blocks_seeds_and_purposes_are_unrelated():
    sampler = prior_sampler(D)
    first = sampler(seeded_generator(0, "samples", 0))
    for other in ((0, "samples", 1), (1, "samples", 0), (0, "images", 0)):
        again = sampler(seeded_generator(*other))
        assert abs(np.corrcoef(first.flatten(), again.flatten())[0, 1]) < 0.3


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize(("world_size", "parts"), [(1, 1), (2, 1), (3, 8), (1, 3), (5, 7)])
def test_processes_and_parts_tile_the_set_in_whole_blocks(n, world_size, parts):
    ids = []
    for part in range(parts):
        for rank in range(world_size):
            ranks = Ranks(rank=rank, world_size=world_size, local_rank=0, device=torch.device("cpu"))
            ids += [block_ids(block, n) for block in blocks_of(n, ranks, part=part, parts=parts)]
    assert torch.equal(torch.cat(ids), torch.arange(n))
    assert all(len(block) == BLOCK for block in ids[:-1])


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="0/3 to 2/3"):
        blocks_of(100, single(), part=3, parts=3)
