"""The exact E-step that prunes components by a bound in half the dimensions."""

import pytest
import torch
from support.mixture_cases import draws, known_mixture

from trainer.mixture.em import pruned
from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.em.pairs import Factors
from trainer.mixture.em.pruned import pruned_statistics, worth_pruning
from trainer.mixture.em.truncated import TruncatedEStep
from trainer.mixture.points import Points, second_moment
from trainer.process_group import single

K, DIM = 150, 32


def assert_same(found, expected):
    torch.testing.assert_close(found.totals[:2], expected.totals[:2], rtol=1e-9, atol=1e-5)
    found, expected = found.about(None, "full"), expected.about(None, "full")
    torch.testing.assert_close(found.sums, expected.sums, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("gaussians", [False, True])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_its_statistics_are_the_exact_ones_even_from_poor_candidates(gaussians, spread, monkeypatch):
    monkeypatch.setattr(pruned, "_PAIRS_AT_A_TIME", 3000)
    monkeypatch.setattr(pruned, "_LARGEST_SHARE", 1.0)
    truth = known_mixture("full", k=K, dim=DIM, spread=spread).parameters_
    x = draws(known_mixture("full", k=K, dim=DIM, spread=spread), 1000).double()
    points = Points(x, torch.rand(x.shape, dtype=torch.float64) if gaussians else None)
    factors = Factors.of(truth, torch.float64)
    arbitrary = torch.arange(len(x)) % K
    centred = points.rows(slice(None)).x[:, None]
    spreads = points.variance[:, None] if gaussians else None
    squares = torch.stack(
        [
            factors.squares(arbitrary[i : i + 1], Points(centred[i][None], spreads[i][None] if gaussians else None))
            for i in range(len(x))
        ]
    ).flatten()
    best = factors.constants[arbitrary] - 0.5 * squares
    exact = DenseEStep(points, None, second_moment(points, single()), "float64").statistics(truth, 1.0)
    assert_same(pruned_statistics(points, truth, factors, best), exact)


def test_truncated_fits_in_many_dimensions_end_with_it():
    apart = known_mixture("full", k=K, dim=DIM, spread=8.0)
    near = known_mixture("full", k=K, dim=DIM, spread=0.3)
    assert worth_pruning(apart.parameters_)
    assert not worth_pruning(known_mixture("full", dim=16).parameters_)
    assert not worth_pruning(known_mixture("diag", dim=DIM).parameters_)
    # Of components that are near each other too few can be pruned, and the dense E-step is used.
    for mixture, prunes in ((apart, True), (near, False)):
        points = Points(draws(mixture, 1000).double())
        moment, parameters = second_moment(points, single()), mixture.parameters_
        factors = Factors.of(parameters, torch.float64)
        candidates = TruncatedEStep(points, None, moment, "float64", width=8)
        best = candidates._scores("train", parameters, factors)[1].amax(1)
        found = pruned_statistics(points, parameters, factors, best)
        assert (found is not None) == prunes
        truncated = TruncatedEStep(points, points, moment, "float64", width=8)
        exact = DenseEStep(points, points, moment, "float64")
        for name in ("train", "held_out"):
            assert_same(truncated.exact(name, parameters), exact.exact(name, parameters))
        # The same points twice, the second time added to the first.
        twice = truncated.exact("held_out", parameters, truncated.exact("train", parameters))
        assert_same(twice, exact.exact("held_out", parameters, exact.exact("train", parameters)))
