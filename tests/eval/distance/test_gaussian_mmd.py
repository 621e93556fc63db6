"""The MMD with a Gaussian kernel against its definition."""

import numpy as np
import pytest
import torch

from eval.distance.measures import cmmd as module
from eval.distance.measures.cmmd import gaussian_mmd


def features(n, seed, shift=0.0):
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("rows", [1024, 7])
def test_the_value_is_the_definition_pair_by_pair(monkeypatch, rows):
    monkeypatch.setattr(module, "_ROWS", rows)
    a, b = features(20, 0), features(15, 1, shift=0.5)
    x, y = (s.double().numpy() / np.linalg.norm(s.double().numpy(), axis=1, keepdims=True) for s in (a, b))

    def mean(p, q):
        return np.mean([np.exp(-((u - v) ** 2).sum() / (2 * 10.0**2)) for u in p for v in q])

    assert gaussian_mmd(a, b) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-8)


def test_equal_sets_are_at_distance_zero_and_shifted_ones_are_not():
    assert gaussian_mmd(features(30, 2), features(30, 2)) == 0
    assert gaussian_mmd(features(30, 2), features(30, 2, shift=2.0)) > 1


def test_the_length_of_vectors_does_not_matter():
    a, b = features(30, 3), features(40, 4, shift=0.5)
    assert gaussian_mmd(3 * a, 0.2 * b) == pytest.approx(gaussian_mmd(a, b), rel=1e-5)
