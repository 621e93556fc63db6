"""Calibration measures, held against data whose variance is known, and against scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from eval.measurements.calibration_numbers import (
    LEVELS,
    average_ranks,
    calibration,
    correlation,
    coverage,
    histogram,
    log_likelihood_gain,
    rank_correlation,
    reliability,
    sparsification,
)
from eval.protocol import VarianceProtocol

PROTOCOL = VarianceProtocol(
    run="none",
    weights="final",
    checkpoint="",
    data="",
    split="test",
    n=60,
    image_shape=(1, 15, 20),
    measure="uncertainty 1",
    variance="per pixel",
    variance_floor=0.0,
)


@pytest.fixture(scope="module")
def calibrated() -> tuple[torch.Tensor, torch.Tensor]:
    """Errors drawn from the very variances that are predicted: 200 images of 400 pixels."""
    generator = torch.Generator().manual_seed(0)
    variance = torch.rand(200, 400, generator=generator, dtype=torch.float64).add(0.05)
    return torch.randn(200, 400, generator=generator, dtype=torch.float64) * variance.sqrt(), variance


def test_calibrated_intervals_hold_their_level(calibrated):
    error, variance = calibrated
    held = coverage(error.square(), variance).mean(0)
    torch.testing.assert_close(held, torch.tensor(LEVELS, dtype=torch.float64), rtol=0, atol=0.006)


def test_intervals_of_half_the_deviation_hold_what_the_normal_distribution_says(calibrated):
    error, variance = calibrated
    held = coverage(error.square(), variance / 4).mean(0)
    expected = [2 * stats.norm.cdf(stats.norm.ppf((1 + level) / 2) / 2) - 1 for level in LEVELS]
    np.testing.assert_allclose(held, expected, atol=0.006)


def test_ranks_and_correlations_are_those_of_scipy():
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 2.0, 2.0, -1.0, 8.0]).double()
    others = torch.tensor([0.5, 0.1, 0.2, 0.2, 0.9, 0.2, -3.0, 1.0]).double()
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values) - 1)
    assert correlation(values, others) == pytest.approx(stats.pearsonr(values, others).statistic, rel=1e-12)
    assert rank_correlation(values, others) == pytest.approx(stats.spearmanr(values, others).statistic, rel=1e-12)


def test_a_constant_variance_has_no_correlation():
    error = torch.rand(50).double()
    assert correlation(error, torch.full((50,), 0.3).double()) == 0
    assert rank_correlation(error, torch.full((50,), 0.3).double()) == 0


def test_groups_of_calibrated_pixels_have_the_error_that_was_predicted(calibrated):
    error, variance = calibrated
    groups = reliability(error.square().flatten(), variance.flatten(), groups=10)
    assert list(groups.variance) == sorted(groups.variance)
    assert groups.square_error == pytest.approx(groups.variance, rel=0.05)


def test_sparsification_is_that_of_a_loop_that_sorts_and_averages(calibrated):
    error, variance = calibrated
    square_error, predicted = error[:5].square().flatten(), variance[:5].flatten()
    curve = sparsification(square_error, predicted, points=10)
    order = np.argsort(-predicted.numpy())
    for place, part in enumerate(curve.left_out):
        kept = square_error.numpy()[order][int(part * 2000) :]
        assert curve.by_variance[place] == pytest.approx(kept.mean() / square_error.mean().item(), rel=1e-9)


def test_the_order_of_the_error_itself_leaves_no_area(calibrated):
    square_error = calibrated[0].square().flatten()
    curve = sparsification(square_error, square_error * 3)
    assert abs(curve.area) < 1e-12
    assert curve.area_of_chance > 0.3


def test_an_uninformative_variance_has_the_area_of_chance(calibrated):
    square_error = calibrated[0].square().flatten()
    constant = sparsification(square_error, torch.ones_like(square_error))
    assert constant.area == pytest.approx(constant.area_of_chance, rel=1e-9)
    shuffled = torch.rand(len(square_error), generator=torch.Generator().manual_seed(1)).double()
    assert sparsification(square_error, shuffled).area == pytest.approx(constant.area_of_chance, rel=0.05)


def test_errors_of_nothing_give_curves_at_zero():
    nothing = torch.zeros(100, dtype=torch.float64)
    curve = sparsification(nothing, torch.rand(100).double())
    assert curve.by_variance == (0.0,) * 20
    assert curve.area == 0


def test_the_gain_is_the_difference_of_the_two_gaussian_likelihoods(calibrated):
    error, variance = calibrated
    ours = stats.norm.logpdf(error, scale=variance.sqrt()).sum(1).mean()
    single = stats.norm.logpdf(error, scale=error.square().mean().sqrt()).sum(1).mean()
    assert log_likelihood_gain(error.square(), variance) == pytest.approx(ours - single, rel=1e-9)


def test_the_histogram_of_residuals_is_a_density():
    residual = torch.randn(10, 5000, generator=torch.Generator().manual_seed(2)).double()
    density = histogram(residual)
    assert density.sum().item() * 0.25 == pytest.approx(1, abs=1e-4)
    assert density[20].item() == pytest.approx(stats.norm.pdf(0.125), abs=0.02)


def test_images_that_are_harder_are_ranked_by_their_mean_variance():
    hardness = torch.linspace(0.1, 2, 60, dtype=torch.float64)[:, None]
    error = torch.randn(60, 300, generator=torch.Generator().manual_seed(3)).double() * hardness
    values = calibration(error, (hardness**2).expand(60, 300), PROTOCOL)
    assert values.rank_correlation_over_images > 0.95
    assert values.upper_half.variance > values.mean_variance
