"""Sums over the few responsibilities that matter, against the dense product."""

import pytest
import torch
from support.mixture_cases import TYPES, draws, known_mixture

from trainer.mixture.em.dense import DenseScores, dense_statistics
from trainer.mixture.em.e_step import Statistics
from trainer.mixture.em.pairs import SparseSums
from trainer.mixture.points import Points


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("gaussians", [False, True])
def test_sparse_sums_are_those_of_the_dense_product(kind, gaussians):
    truth = known_mixture(kind, k=200, dim=8, spread=10.0)
    x = draws(truth, 2000).double()
    points = Points(x, 0.1 * torch.rand(2000, 8, dtype=torch.float64) if gaussians else None)
    scores = DenseScores(truth.parameters_, torch.float64)
    dense, sparse = dense_statistics(points, scores), dense_statistics(points, scores, sparse=True)
    assert not torch.equal(dense.sums, sparse.sums)  # they were found in another way
    torch.testing.assert_close(sparse.sums, dense.sums, rtol=1e-7, atol=1e-5)
    assert torch.equal(sparse.totals, dense.totals)
    assert torch.equal(sparse.common, dense.common)


def test_responsibilities_that_are_spread_out_are_summed_densely():
    truth = known_mixture("full", k=60, dim=2, spread=0.1)
    points = Points(draws(truth, 1000).double())
    scores = DenseScores(truth.parameters_, torch.float64)
    assert torch.equal(dense_statistics(points, scores, sparse=True).sums, dense_statistics(points, scores).sums)


def test_collected_pairs_are_added_once():
    points = Points(torch.tensor([[2.0, 3.0], [5.0, 7.0]], dtype=torch.float64))
    statistics = Statistics.zeros("diag", 100, 2, torch.device("cpu"))
    sums = SparseSums(points, statistics, "diag")
    relative = torch.zeros(1, 100, dtype=torch.float64)
    relative[0, 4] = 0.5
    assert sums.take(1, relative, torch.tensor([2.0], dtype=torch.float64))
    sums.add()
    sums.add()
    assert statistics.sums[4].tolist() == [0.25, 1.25, 1.75, 6.25, 12.25]
    assert statistics.sums.sum() == statistics.sums[4].sum()
