"""A measure is one file: the command, the result, the report, sweeps and the paper's tables list the package."""

import dataclasses
from pathlib import Path

import pytest
import torch

from data_shards.io.errors import OneLineParser
from eval.commands import fid
from eval.distance.measures import FRECHET, FURTHER, table_of
from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics
from eval.report.tables import further_measures_table
from eval.results import DistanceResult

RESULT = Path(__file__).parents[1] / "results_of_earlier_code" / "fid-q_hat-32-full-640-test-efficientnet-lite0-64.json"

MEDIAN = Measure(
    name="median",
    help="how far the medians are apart",
    numbers=[Number(name="median_distance", title="Median", unit="feature units", decimals=1, better="lower")],
    function=lambda compared, reference, seed: [
        Estimate(
            value=float((compared.kept_features().median(0)[0] - reference.kept_features().median(0)[0]).norm()),
            standard_error=0.25,
        )
    ],
)


@pytest.fixture
def sides():
    generator = torch.Generator().manual_seed(0)
    made = []
    for shift in (0.0, 1.0):
        side = FeatureStatistics(4, keep_features=True)
        side.update(torch.randn(64, 4, generator=generator) + shift, torch.arange(64))
        made.append(side)
    return made


@pytest.mark.parametrize("measure", [FRECHET, *FURTHER.values()], ids=lambda measure: measure.name)
def test_a_measure_gives_the_numbers_that_it_declares(measure, sides):
    values = measure(*sides, seed=0)
    assert list(values) == [number.name for number in measure.numbers]
    assert [value.unit for value in values.values()] == [number.unit for number in measure.numbers]


def test_two_measures_of_one_name_or_of_numbers_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"two files .* declare a measure 'median'"):
        table_of([MEDIAN, MEDIAN])
    with pytest.raises(ValueError, match="'median' and 'other' both give a number 'median_distance'"):
        table_of([MEDIAN, dataclasses.replace(MEDIAN, name="other")])


def test_a_further_measure_is_an_option_of_the_command_and_a_column_of_the_report(monkeypatch, sides):
    monkeypatch.setitem(FURTHER, "median", MEDIAN)
    parser = OneLineParser()
    fid.add_arguments(parser)
    assert parser.parse_args(["--run", "run", "--from", "prior", "--also", "median"]).also == ["median"]
    assert "how far the medians are apart" in " ".join(parser.format_help().split())
    values = MEDIAN(*sides, seed=0)
    table = further_measures_table([dataclasses.replace(DistanceResult.load(RESULT), values=values)])
    assert table.head[-1] == "Median ↓"
    assert table.rows[0][-1].startswith(f"{values['median_distance'].value:.1f} ")
