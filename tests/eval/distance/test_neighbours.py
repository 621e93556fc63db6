"""Precision, recall, density and coverage against scikit-learn's neighbours and cases that are known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from data_shards.io.errors import InputError
from eval.distance.measures import neighbours as module
from eval.distance.measures.neighbours import overlap


def gaussian(n, seed, *, shift=0.0, scale=1.0, d=6):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, d)) * scale + shift, dtype=torch.float32)


def by_scikit_learn(samples, real):
    """The four measures from their definitions, with scikit-learn's exact neighbours in float64."""
    samples, real = samples.double().numpy(), real.double().numpy()

    def radii(x, k):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]

    distance = pairwise_distances(samples, real)
    inside = distance <= radii(real, 5)
    return {
        "precision": (distance <= radii(real, 3)).any(1).mean(),
        "recall": (distance <= radii(samples, 3)[:, None]).any(0).mean(),
        "density": inside.sum(1).mean() / 5,
        "coverage": inside.any(0).mean(),
    }


@pytest.mark.parametrize("chunk", [1024, 37])
def test_all_four_are_scikit_learns(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    samples, real = gaussian(150, 0, shift=0.4), gaussian(200, 1)
    got = overlap(samples, real)
    for name, expected in by_scikit_learn(samples, real).items():
        assert getattr(got, name) == pytest.approx(expected, abs=1e-6)


def test_a_copy_of_the_real_set_is_perfect():
    real = gaussian(120, 2)
    got = overlap(real.clone(), real)
    assert (got.precision, got.recall, got.coverage) == (1, 1, 1)


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
