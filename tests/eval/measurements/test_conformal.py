"""Conformal intervals against plain quantiles, and their coverage of simulated pixels."""

import numpy as np
import pytest
import torch

from eval.measurements.conformal import (
    calibrated_intervals,
    conformal_half_widths,
    coverage_of_groups,
    group_edges,
    promised,
    scores_needed,
)
from eval.measurements.regions import region_coverage

LEVELS = (0.5, 0.9, 0.99)


def test_the_half_width_is_the_smallest_score_that_has_enough_scores_at_or_below_it():
    score = torch.rand(199, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = conformal_half_widths(score, torch.zeros(199, dtype=torch.int64), 1, LEVELS)[:, 0]
    ordered = np.sort(score.numpy())
    assert found.tolist() == [ordered[99], ordered[179], ordered[197]]  # 100, 180 and 198 of 200


def pixels(seed: int, images: int = 1600) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of heavy tails whose true width is another function of the predicted variance."""
    generator = torch.Generator().manual_seed(seed)
    variance = torch.rand(images, 500, generator=generator) + 0.05
    noise = torch.randn(images, 500, generator=generator) ** 3
    return noise * variance, variance


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_intervals_hold_what_is_asked_overall_and_in_each_tenth_whatever_the_errors_are(level):
    found = calibrated_intervals(pixels(0), pixels(1), LEVELS, "valid")
    assert found.coverage[level].value == pytest.approx(LEVELS[level], abs=0.005)
    for tenth in found.tenths:
        assert tenth.coverage[level].value == pytest.approx(LEVELS[level], abs=0.012)


def test_one_variance_for_all_pixels_is_one_group():
    assert group_edges(torch.full((50,), 0.2), 1).tolist() == []
    errors = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    found = calibrated_intervals((errors, torch.ones(40, 30)), (errors, torch.ones(40, 30)), LEVELS, "valid")
    assert len(found.half_widths[0]) == len(found.tenths) == 1
    assert found.half_widths[1][0] == pytest.approx(1.64, abs=0.15)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.8, 0.9, 0.95, 0.99])
def test_an_interval_is_calibrated_only_by_as_many_images_as_can_promise_it(level):
    n = scores_needed(level)
    assert (n - 1) / n < level <= n / (n + 1)
    assert promised((level,), n - 1) == ()
    assert promised((level,), n) == (level,)


@pytest.mark.parametrize(("images", "levels"), [(8, [0.5]), (9, [0.5, 0.9]), (98, [0.5, 0.9]), (99, [0.5, 0.9, 0.99])])
def test_levels_that_so_few_held_out_images_cannot_promise_are_left_out(images, levels):
    found = calibrated_intervals(pixels(0, images), pixels(1, 200), LEVELS, "valid")
    assert [number.level for number in found.coverage] == levels
    assert [number.level for number in found.tenths[0].coverage] == levels
    assert len(found.half_widths) == len(levels)
    held_out, scores = torch.rand(images, 4).double(), torch.rand(200, 4).double()
    region = region_coverage(14, (scores, scores), LEVELS, held_out)
    assert [number.level for number in region.calibrated] == levels
    assert [number.level for number in region.correlated] == list(LEVELS)


@pytest.mark.parametrize("values", [30, 700, 10_000])
def test_every_group_has_as_many_scores_as_its_highest_level_needs_however_many_deviations_are_equal(values):
    sigma = torch.randint(0, values, (5000,), generator=torch.Generator().manual_seed(0)).float().square()
    edges = group_edges(sigma, 99)
    sizes = torch.bincount(torch.bucketize(sigma, edges, right=True))
    assert len(sizes) == len(edges) + 1
    assert len(sizes) > 1
    assert sizes.min() >= 99


def images_of_their_own_difficulty(seed: int, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of an image's 60 pixels that share a factor which the variance does not know."""
    generator = torch.Generator().manual_seed(seed)
    variance = torch.rand(images, 60, generator=generator) + 0.05
    factor = torch.rand(images, 1, generator=generator) + 0.5
    return torch.randn(images, 60, generator=generator) * variance.sqrt() * factor, variance


def test_the_error_of_a_tenth_is_the_deviation_over_other_images_of_both_splits():
    repeated = [
        calibrated_intervals(
            images_of_their_own_difficulty(2 * s, 120), images_of_their_own_difficulty(2 * s + 1, 200), (0.5,), "valid"
        )
        for s in range(120)
    ]
    value = torch.tensor([[tenth.coverage[0].value for tenth in one.tenths] for one in repeated])
    error = torch.tensor([[tenth.coverage[0].standard_error for tenth in one.tenths] for one in repeated])
    assert error.mean().item() == pytest.approx(value.std(0).mean().item(), rel=0.1)
    assert value.mean().item() == pytest.approx(0.5, abs=0.01)


def test_pixels_that_are_inside_together_count_as_one():
    inside = torch.tensor([[[True] * 3, [False] * 3, [True] * 3, [True] * 3]])
    value, error = coverage_of_groups(inside, torch.zeros(4, 3, dtype=torch.int64), 1)
    assert value.item() == pytest.approx(0.75)
    assert error.item() == pytest.approx(np.std([1, 0, 1, 1], ddof=1) / 2)
