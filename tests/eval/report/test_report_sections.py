"""What the report says follows from what was measured."""

import math
from dataclasses import replace

import numpy as np
import pytest

from data_shards.io.tables import plus_minus
from eval.calibration import (
    Coverage,
    CoverageOfImages,
    RegionCoverage,
    Reliability,
    Sparsification,
    StandardisedResiduals,
)
from eval.measurements.calibration_numbers import calibration_verdict
from eval.protocol import DistanceProtocol, LikelihoodProtocol, UncertaintyProtocol, VarianceProtocol
from eval.report import printed_results
from eval.report.figures import kl_curve, region_figure, rising_curve, series, stage_switch, variance_curve
from eval.report.known import RunResults
from eval.report.page import _on_a_card, training_section
from eval.report.tables import further_measures_table, likelihood_table, region_table, with_error
from eval.results import DistanceResult, LikelihoodResult, Measured, UncertaintyResult
from trainer.objectives.gaussian import variance_floor_cap

EVENTS = [
    {"event": "train", "stage": 1, "images": 100, "elbo": -5e5, "kl": 1.0, "sigma2": 0.3, "closed_form_sigma2": 0.2},
    {"event": "train", "stage": 1, "images": 200, "elbo": None, "kl": 2.0, "sigma2": 0.2, "closed_form_sigma2": 0.1},
    {"event": "valid", "stage": 1, "images": 200, "elbo": 90.0, "kl": 2.1, "closed_form_sigma2": 0.11},
    {
        "event": "stage_end",
        "stage": 1,
        "images": 200,
        "reason": "converged",
        "sigma2": 0.1,
        "closed_form_sigma2": 0.11,
        "elbo": 100.0,
    },
    {"event": "stage_start", "stage": 2, "images": 200, "elbo": 99.5},
    {"event": "resume", "stage": 2, "images": 200},
    {"event": "train", "stage": 2, "images": 300, "elbo": 120.0, "kl": 2.2, "sigma2": 0.1, "closed_form_sigma2": 0.09},
]


def test_a_series_holds_the_finite_values_of_one_kind_of_event():
    images, values = series(EVENTS, "train", "elbo")
    assert images.tolist() == [100, 300]
    assert values.tolist() == [-5e5, 120.0]


def test_the_switch_is_where_stage_2_starts():
    assert stage_switch(EVENTS) == 200
    assert stage_switch(EVENTS[:3]) is None


@pytest.mark.parametrize("draw", [kl_curve, variance_curve, lambda events: rising_curve(events, "elbo", "ELBO")])
def test_a_curve_is_drawn_alike_twice_and_not_at_all_without_data(draw):
    assert draw(EVENTS).startswith(b"<?xml")
    assert draw(EVENTS) == draw(EVENTS)
    assert draw([]) is None


def test_the_training_section_compares_the_two_stages_at_the_switch():
    text = " ".join(training_section(EVENTS, "demo").text)
    assert "sigma² = 0.10000" in text
    assert "1.100 times that" in text
    assert "99.5 nats where stage 1 had ended at 100.0 (0.50% apart)" in text


def test_the_switch_is_left_out_where_a_number_there_was_not_finite():
    events = [{**event, "elbo": None} if event["event"] == "stage_start" else event for event in EVENTS]
    text = " ".join(training_section(events, "demo").text)
    assert "sigma² = 0.10000" in text
    assert "Stage 2 began" not in text
    events = [{**event, "closed_form_sigma2": None} if event["event"] == "stage_end" else event for event in EVENTS]
    assert "sigma² = 0.10000" not in " ".join(training_section(events, "demo").text)


def test_a_run_without_metrics_names_the_command_that_trains():
    (missing,) = training_section([], "demo").missing
    assert missing.command == "python -m trainer --config demo/config.yaml"


PROTOCOL = {
    "run": "demo",
    "checkpoint": "c",
    "data": "d",
    "split": "test",
    "n": 500,
    "image_shape": (1, 28, 28),
}
VARIANCE = {"measure": "m", "variance_floor": 0.01}


def calibration(held, *, variance="per pixel", area=0.1):
    levels = zip((0.5, 0.68, 0.8, 0.9, 0.95, 0.99), held, strict=True)
    return UncertaintyResult(
        protocol=VarianceProtocol(**PROTOCOL, **VARIANCE, weights="final", variance=variance),
        coverage=tuple(CoverageOfImages(level=level, value=value, standard_error=None) for level, value in levels),
        upper_half=None,
        residuals=StandardisedResiduals(
            mean=0.0, standard_deviation=1.0, edges=(-1.0, 1.0), density=(0.5,), beyond=0.0
        ),
        correlation_of_variance_and_square_error=0.5,
        rank_correlation_over_pixels=0.5,
        rank_correlation_over_images=0.5,
        reliability=Reliability(variance=(0.1,), square_error=(0.1,)),
        sparsification=Sparsification(left_out=(), by_variance=(), by_error=(), area=area, area_of_chance=0.4),
        log_likelihood_gain=-3.0,
        mean_square_error=0.1,
        mean_variance=0.1,
    )


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ((0.51, 0.69, 0.79, 0.9, 0.94, 0.98), "as promised"),
        # A little below and a little above what is promised is the same verdict.
        ((0.5, 0.68, 0.8, 0.9, 0.95, 0.987), "as promised"),
        ((0.5, 0.68, 0.8, 0.9, 0.95, 0.991), "as promised"),
        ((0.77, 0.84, 0.89, 0.92, 0.94, 0.97), "most errors are smaller, and the largest ones larger"),
        ((0.3, 0.5, 0.7, 0.9, 0.99, 1.0), "most errors are larger, and the largest ones smaller"),
        ((0.77, 0.84, 0.89, 0.92, 0.95, 0.987), "too wide, by a factor of up to 1.78"),
        ((0.77, 0.84, 0.89, 0.92, 0.95, 0.991), "too wide, by a factor of up to 1.78"),
        ((0.8, 0.9, 0.95, 0.99, 1.0, 1.0), "too wide"),
        ((0.2, 0.3, 0.4, 0.5, 0.6, 0.7), "too narrow"),
    ],
)
def test_the_verdict_follows_from_the_intervals(held, says):
    sentence = calibration_verdict(calibration(held))
    assert says in sentence
    assert "75% of what is possible" in sentence
    assert "costs 3 nats" in sentence


def test_one_variance_cannot_tell_where_errors_are():
    assert "cannot tell where" in calibration_verdict(calibration((0.5,) * 6, variance="one"))


def points(*held):
    return tuple(Coverage(level=level, value=value) for level, value in zip((0.5, 0.9), held, strict=True))


@pytest.mark.parametrize("calibrated", [(), points(0.5, 0.9)])
def test_means_over_regions_show_every_kind_of_interval_that_was_measured(calibrated):
    region = RegionCoverage(
        side=2, regions=196, independent=points(0.72, 0.91), correlated=points(0.73, 0.92), calibrated=calibrated
    )
    protocol = UncertaintyProtocol(
        **PROTOCOL, **VARIANCE, weights="final", variance="per pixel", calibration="valid" if calibrated else ""
    )
    result = replace(calibration((0.5,) * 6), regions=(region,), protocol=protocol)
    table = region_table(result)
    third = " / 50.0%" if calibrated else ""
    assert table.rows[0][:2] == ("2 x 2 pixels", f"72.0% / 73.0%{third}")
    assert ("calibrated on split valid" in table.caption) == bool(calibrated)
    assert (b"calibrated" in region_figure(result)) == bool(calibrated)


def test_levels_that_too_few_held_out_images_could_promise_have_no_calibrated_interval():
    region = RegionCoverage(
        side=0, regions=1, independent=points(0.7, 0.9), correlated=points(0.7, 0.9), calibrated=points(0.5, 0.9)[:1]
    )
    protocol = UncertaintyProtocol(**PROTOCOL, **VARIANCE, weights="final", variance="per pixel", calibration="valid")
    result = replace(calibration((0.5,) * 6), regions=(region,), protocol=protocol)
    assert list(region_table(result).rows) == [("whole images", "70.0% / 70.0% / 50.0%", "90.0% / 90.0% / -")]
    assert b"calibrated" in region_figure(result, level=0.5)
    assert b"calibrated" not in region_figure(result, level=0.9)


def measured(value, error=None, interval=None):
    return Measured(value=value, standard_error=error, unit="", interval_95=interval)


def likelihoods(weights, variance, **noise):
    number = measured(1234.56, 7.891)
    density = {"importance_samples": 20, "mixture": "", "mixture_digest": ""}
    return LikelihoodResult(
        protocol=LikelihoodProtocol(**PROTOCOL, **VARIANCE, **density, **noise, weights=weights, variance=variance),
        values={"iwae_prior": number, "elbo": number, "mean_square_error": measured(0.01)},
        cap=1500.0,
        dataset_variance=0.02,
        active_dimensions=16,
        latent_kl=None,
    )


def test_likelihoods_stand_from_the_plainest_noise_on_and_the_first_ones_are_on_cards():
    noises = [
        ("final", {"noise": "correlated-component", "floor": "none"}),
        ("final", {"noise": "correlated", "floor": "none"}),
        ("stage1", {"noise": "correlated", "floor": "algorithm1"}),
        ("final", {"noise": "correlated", "floor": "algorithm1"}),
        ("final", {"annealing": {"steps": 10, "chains": 1}}),
        ("final", {}),
        ("stage1", {}),
    ]
    results = [likelihoods(weights, "per pixel", **noise) for weights, noise in noises]
    shown = RunResults(likelihoods=results).shown("test", "4-full").likelihoods
    assert [results.index(one) for one in shown] == [6, 2, 5, 4, 3, 1, 0]
    assert [results.index(one) for one in shown if _on_a_card(one)] == [6, 5, 4, 3]


def test_our_likelihoods_stand_beside_those_of_the_same_method_in_the_paper():
    results = [likelihoods("stage1", "one"), likelihoods("final", "per pixel")]
    table = likelihood_table(results, "fashion-mnist", "sigma_vae")
    assert table.head[1:] == (
        "one variance (end of stage 1)",
        "variance per pixel (final)",
        "paper, one variance",
        "paper, per pixel",
    )
    row = next(row for row in table.rows if row[0].endswith("latents from the prior"))
    ours = plus_minus("1,234.6", "7.9")
    assert row[1:] == (ours, ours, "1,145", "5,708")
    assert all(len(row) == len(table.head) for row in table.rows)


def test_a_baseline_stands_beside_the_papers_baseline():
    table = likelihood_table([likelihoods("final", "one")], "mnist", "beta_vae")
    assert table.head[-1] == "paper, beta-VAE"
    assert table.rows[0][-1] == "-730"


def test_a_data_set_that_the_paper_has_not_gets_no_column():
    assert len(likelihood_table([likelihoods("final", "one")], None, "sigma_vae").head) == 2


def test_a_number_without_an_error_is_printed_alone():
    assert with_error(measured(0.01234), 4) == "0.0123"


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("mnist", "mnist"),
        ("Fashion_MNIST", "fashion-mnist"),
        ("shards/celeba-64", "celeba"),
        ("my holiday pictures", None),
    ],
)
def test_the_papers_data_sets_are_known_by_name(name, dataset):
    assert printed_results.dataset_of(name) == dataset


def test_the_printed_per_pixel_likelihoods_exceed_both_limits_that_the_remark_names():
    # d log 256 for 28 x 28 pixels, and the cap at half of the variance that 1307 nats of one variance imply
    assert round(784 * math.log(256)) == 4347
    least = min(row.per_pixel for rows in printed_results.LOG_LIKELIHOOD.values() for row in rows.values())
    assert least > 4347
    variance = math.exp(-2 * 1307 / 784 - 1) / (2 * math.pi)
    assert least > 2 * variance_floor_cap(784, variance / 2)


def test_the_printed_one_variance_likelihoods_ask_for_the_errors_that_the_remark_names():
    for dataset, error in (("fashion-mnist", 0.0029), ("mnist", 0.002)):
        variance = math.exp(-2 * printed_results.LOG_LIKELIHOOD[dataset]["prior"].one_variance / 784 - 1) / (
            2 * math.pi
        )
        assert np.isclose(variance, error, rtol=0.12)


def test_further_measures_get_a_column_where_one_set_has_them():
    def distances(source, values):
        protocol = DistanceProtocol(
            **PROTOCOL,
            weights="final",
            source=source,
            latents="",
            extractor={"name": "inception"},
            n_reference=500,
            channels="",
        )
        return DistanceResult(label="FID", values=values, also=(), below_protocol=True, remarks=(), protocol=protocol)

    results = [
        distances("q_hat", {"precision": measured(0.5)}),
        distances("prior", {"frechet_distance_at_infinite_n": measured(12.0, interval=(11.0, 13.5))}),
        distances("half", {}),
    ]
    table = further_measures_table(results)
    assert table.head == ("Images", "Weights", "Features", "Frechet, infinite n ↓", "Precision ↑")
    assert list(table.rows) == [
        ("samples from q̂", "final", "inception", "", "0.500"),
        ("samples from the prior", "final", "inception", "12.00 (11.00 to 13.50)", ""),
    ]
    assert further_measures_table([distances("half", {})]) is None
