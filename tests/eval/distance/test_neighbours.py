"""Precision, recall, density and coverage from their definitions and in cases that are known."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from data_shards.io.errors import InputError
from eval.distance.measures import neighbours as module
from eval.distance.measures.neighbours import overlap


def gaussian(n, seed, *, shift=0.0, scale=1.0, d=6):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, d)) * scale + shift, dtype=torch.float32)


def by_definition(samples, real):
    """The four measures from their definitions, with scipy's distances, from differences in float64."""
    samples, real = samples.double().numpy(), real.double().numpy()

    def radii(x, k):
        return np.sort(cdist(x, x), axis=1)[:, k]

    distance = cdist(samples, real)
    inside = distance < radii(real, 5)
    return {
        "precision": (distance <= radii(real, 3)).any(1).mean(),
        "recall": (distance <= radii(samples, 3)[:, None]).any(0).mean(),
        "density": inside.sum(1).mean() / 5,
        "coverage": inside.any(0).mean(),
    }


@pytest.mark.parametrize("chunk", [1024, 37])
def test_all_four_are_those_of_their_definitions(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    samples, real = gaussian(150, 0, shift=0.4), gaussian(200, 1)
    got = overlap(samples, real)
    for name, expected in by_definition(samples, real).items():
        assert getattr(got, name) == pytest.approx(expected, abs=1e-6)


def test_a_copy_of_the_real_set_is_perfect():
    real = gaussian(120, 2)
    got = overlap(real.clone(), real)
    assert (got.precision, got.recall, got.coverage) == (1, 1, 1)


def test_density_of_a_copy_is_1_as_in_the_authors_program():
    # Each vector lies in its own ball, in those of its nearer neighbours, and on the edge of one.
    real = gaussian(120, 2)
    assert overlap(real.clone(), real).density == pytest.approx(1)
    assert overlap(real.clone(), real).density == pytest.approx(by_definition(real, real)["density"])


def test_rounding_of_features_does_not_decide_whether_equal_images_are_covered():
    real = gaussian(120, 2)
    rounded = real * (1 + 2e-7 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0)))
    assert overlap(rounded, real) == overlap(real.clone(), real)


def test_sets_that_share_images_have_the_values_of_the_definition():
    real, others = gaussian(150, 5), gaussian(90, 6, shift=0.3)
    samples = torch.cat([real[:60], others])
    got = overlap(samples, real)
    for name, expected in by_definition(samples, real).items():
        assert getattr(got, name) == pytest.approx(expected, abs=1e-6)


def test_images_that_occur_often_are_covered_by_copies_of_them():
    real = gaussian(20, 8).repeat(9, 1)
    got = overlap(real.clone(), real)
    assert (got.precision, got.recall, got.coverage) == (1, 1, 1)
    assert overlap(gaussian(30, 9, shift=100.0), real).density == 0


def test_samples_elsewhere_have_nothing_in_common_with_the_real_set():
    got = overlap(gaussian(80, 3, shift=100.0), gaussian(90, 4))
    assert (got.precision, got.recall, got.density, got.coverage) == (0, 0, 0, 0)


def test_samples_of_one_mode_only_are_precise_and_do_not_recall_the_other():
    real = torch.cat([gaussian(100, 5, scale=0.1), gaussian(100, 6, scale=0.1, shift=10.0)])
    got = overlap(gaussian(200, 7, scale=0.1), real)
    assert got.precision > 0.8
    assert got.recall <= 0.5
    assert got.coverage <= 0.5


def test_features_far_from_the_origin_keep_their_digits():
    samples, real = gaussian(150, 8, shift=0.4), gaussian(200, 9)
    assert overlap(samples + 1000, real + 1000).density == pytest.approx(overlap(samples, real).density, rel=0.01)


def test_too_few_images_are_one_clear_error():
    with pytest.raises(InputError, match="at least 7"):
        overlap(gaussian(6, 0), gaussian(50, 1))
