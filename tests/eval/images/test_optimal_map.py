"""The map between Gaussians against closed forms, scipy, and maps that reach the same end otherwise."""

import numpy as np
import scipy.linalg
import torch

from eval.images.optimal_map import MomentSums, optimal_map, optimal_maps
from trainer.process_group import single


def covariance(seed: int, dim: int = 6, rank: int = 20) -> torch.Tensor:
    x = torch.randn(rank, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.mT @ x / rank


def test_the_map_is_symmetric_and_turns_one_covariance_into_the_other():
    source, target = covariance(0), covariance(1)
    found = optimal_map(source, target)
    torch.testing.assert_close(found, found.mT)
    torch.testing.assert_close(found @ source @ found.mT, target)
    assert float(torch.linalg.eigvalsh(found).min()) > 0


def test_the_map_is_that_of_scipys_matrix_roots():
    source, target = covariance(2).numpy(), covariance(3).numpy()
    # The other form of the same map: T (S T)^-1/2 for S = source and T = target.
    expected = target @ np.linalg.inv(scipy.linalg.sqrtm(source @ target)).real
    np.testing.assert_allclose(optimal_map(torch.tensor(source), torch.tensor(target)).numpy(), expected, rtol=1e-8)


def test_between_independent_directions_it_is_the_ratio_of_deviations():
    source, target = torch.tensor([4.0, 0.25, 1.0]).double(), torch.tensor([1.0, 1.0, 0.0]).double()
    expected = torch.diag(torch.tensor([0.5, 2.0, 0.0]).double())
    torch.testing.assert_close(optimal_map(source.diag(), target.diag()), expected)


def test_no_rotation_of_the_target_is_reached_with_less_change():
    source, target = covariance(4), covariance(5)
    root = torch.linalg.cholesky(target)
    inverse = torch.linalg.inv(torch.linalg.cholesky(source))

    def cost(a: torch.Tensor) -> float:
        move = a - torch.eye(len(a), dtype=torch.float64)
        return float((move @ source @ move.mT).trace())

    best = cost(optimal_map(source, target))
    generator = torch.Generator().manual_seed(6)
    for _ in range(200):
        rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
        assert cost(root @ rotation @ inverse) > best


def test_moments_are_numpys():
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64) + 1
    component = torch.arange(300) % 3
    sums = MomentSums(torch.tensor([0, 1, 1, 1]), 5)
    for part in (slice(0, 10), slice(10, 300)):
        sums.add(x[part], component[part])
    found = sums.moments(single())
    assert found.count.tolist() == [100, 100, 100, 0]
    alone = [np.cov(x[component == k].numpy().T, bias=True) for k in range(3)]
    for k in range(3):
        np.testing.assert_allclose(found.mean[k], x[component == k].numpy().mean(0))
    np.testing.assert_allclose(found.covariance[0], alone[0])
    np.testing.assert_allclose(found.covariance[1], (alone[1] + alone[2]) / 2)


def test_maps_made_together_are_those_made_one_by_one():
    source, target = (torch.stack([covariance(seed) for seed in seeds]) for seeds in ((0, 1, 2), (3, 4, 5)))
    together = optimal_map(source, target)
    for place in range(3):
        torch.testing.assert_close(together[place], optimal_map(source[place], target[place]))
    torch.testing.assert_close(optimal_maps(source, target), together.float())
