"""Annealed importance sampling against the exact likelihood of a linear Gaussian model."""

import pytest
import torch
from support.linear_gaussian import LinearGaussian

from eval.measurements.annealed import Annealing, annealed_bound, joint_density
from eval.measurements.posterior_samples import importance_weighted
from trainer.objectives.gaussian import log_prior


def model_and_images(n, **fields):
    model = LinearGaussian((1, 4, 4), 4, variance=0.01, **fields)
    return model, model.sample(n, torch.Generator().manual_seed(1))


def bound(model, images, annealing, seed=0, indices=None):
    indices = range(len(images)) if indices is None else indices
    joint = joint_density(model.decode, images, log_prior)
    return annealed_bound(model.encode(images), joint, indices, annealing, seed=seed)


@pytest.fixture(scope="module")
def poor():
    """A posterior three times too narrow, from which importance samples never reach the true one."""
    return model_and_images(40, stretch=0.33)


def test_it_is_much_nearer_to_the_exact_likelihood_than_importance_samples(poor):
    model, images = poor
    exact = model.log_marginal(images)
    annealed = bound(model, images, Annealing(steps=400, leapfrog=5))
    weighted = importance_weighted(model, images, log_prior, 20, generator=torch.Generator().manual_seed(0))
    gap, other = (exact - annealed.bound).mean(), (exact - weighted).mean()
    assert 0 <= gap < 0.25 * other
    assert 0.6 < annealed.acceptance.mean() < 0.98


def test_it_is_nearer_than_as_many_importance_samples_as_it_decodes(poor):
    model, images = poor
    annealing = Annealing(steps=100)
    exact = model.log_marginal(images)
    weighted = importance_weighted(
        model, images, log_prior, annealing.decodings, generator=torch.Generator().manual_seed(0)
    )
    assert (exact - bound(model, images, annealing).bound).mean() < 0.5 * (exact - weighted).mean()


@pytest.mark.parametrize("steps", [3, 20])
def test_the_mean_of_its_weights_is_the_likelihood_without_bias(steps):
    # A posterior that is too wide: where it is too narrow, rare weights are so large that their mean converges slowly.
    model, images = model_and_images(1, stretch=2.0)
    one = images.expand(600, -1, -1, -1)
    found = bound(model, one, Annealing(steps=steps, leapfrog=4))
    ratios = (found.bound - model.log_marginal(one)).exp()
    assert abs(float(ratios.mean()) - 1) < 4 * float(ratios.std()) / 600**0.5
    assert float(ratios.std()) / 600**0.5 < 0.1


def test_more_steps_and_more_chains_tighten_it(poor):
    model, images = poor
    few, many, averaged = (
        bound(model, images, annealing).bound.mean()
        for annealing in (Annealing(steps=5), Annealing(steps=80), Annealing(steps=5, chains=6))
    )
    assert few < averaged
    assert few < many <= model.log_marginal(images).mean() + 0.05


def test_an_image_has_the_same_bound_whatever_stands_beside_it(poor):
    model, images = poor
    whole = bound(model, images, Annealing(steps=10)).bound
    part = bound(model, images[30:], Annealing(steps=10), indices=range(30, 40)).bound
    torch.testing.assert_close(part, whole[30:])
