"""What is concluded from the records of a sweep: ranking, sensitivity, front, correlation, best against default."""

import csv
import io
import itertools
import math
import random

import pytest
from scipy.stats import kendalltau
from support.sweep_cases import record

from tune.confirmation import against_default
from tune.report.correlation import early_and_final
from tune.report.pareto import front
from tune.report.ranking import best_configuration, ranking
from tune.report.report import build_page
from tune.report.sensitivity import elbo_at, sensitivity
from tune.report.summary import to_markdown
from tune.report.trial_table import to_csv
from tune.search.space import read_space

SPACE = read_space({"model.latent_dim": {"choice": [2, 3, 4, 5, 6, 7]}})


def test_configurations_rank_by_their_mean_over_seeds_with_the_standard_deviation_over_them():
    records = [
        *(record(0, seed=seed, fd_final=value) for seed, value in enumerate((10.0, 30.0))),
        *(record(1, seed=seed, fd_final=value) for seed, value in enumerate((18.0, 20.0))),
    ]
    ranked = ranking(records, "fd")
    assert [(one.number, one.mean) for one in ranked] == [(1, 19.0), (0, 20.0)]
    assert ranked[1].spread == pytest.approx(math.sqrt(200))


def test_a_configuration_with_fewer_finished_seeds_ranks_behind_all_with_more():
    records = [record(0, fd_final=1.0), *(record(1, seed=seed, fd_final=50.0) for seed in (0, 1))]
    assert [one.number for one in ranking(records, "fd")] == [1, 0]


def test_stopped_failed_and_confirming_trials_are_not_ranked():
    records = [
        record(0),
        record(1, status="stopped"),
        record(2, status="failed"),
        record(3, phase="confirm"),
        record(4, fd_final=None),
    ]
    assert best_configuration(records, "fd") == record(0)["fields"]
    assert len(ranking(records, "fd")) == 1
    assert best_configuration(records[1:], "fd") is None


def test_the_front_holds_exactly_the_trials_that_no_other_beats_in_both():
    generator = random.Random(5)
    records = [record(n, seconds=generator.random(), fd_final=generator.random()) for n in range(60)]

    def beaten(one):
        return any(
            other["seconds"] <= one["seconds"] and other["fd_final"] <= one["fd_final"] and other is not one
            for other in records
        )

    expected = {one["trial"] for one in records if not beaten(one)}
    found = front(records, "fd")
    assert {one["trial"] for one in found} == expected
    assert [one["seconds"] for one in found] == sorted(one["seconds"] for one in found)


def test_the_early_value_is_that_of_the_first_check_that_saw_enough_images():
    one = record(1)
    assert (elbo_at(one, 500), elbo_at(one, 501), elbo_at(one, 2001)) == (1.0, 2.0, None)


@pytest.mark.parametrize(("sign", "rho"), [(1, 1.0), (-1, -1.0)])
def test_the_rank_correlation_is_1_where_the_early_order_is_the_final_one_best_with_best(sign, rho):
    # A low distance is good: the best early trial has the lowest distance where the order is kept.
    records = [record(n, fd_final=100.0 - sign * n**2) for n in range(6)]
    found = {one.final: one for one in early_and_final(records, [1000])}
    assert (found["fd"].rho, found["fd"].trials) == (pytest.approx(rho), 6)
    assert found["elbo"].rho == pytest.approx(1.0)


def test_the_rank_correlation_agrees_in_sign_with_kendalls_and_leaves_out_trials_that_had_ended_by_then():
    generator = random.Random(3)
    finals = [generator.random() for _ in range(10)]
    records = [record(n, fd_final=value) for n, value in enumerate(finals)]
    (found,) = [one for one in early_and_final([*records, record(10, images=900)], [1000]) if one.final == "fd"]
    assert found.trials == 10
    assert found.rho * kendalltau(range(10), [-value for value in finals]).statistic > 0


def test_the_rank_correlation_of_two_trials_is_not_given():
    assert all(one.rho is None for one in early_and_final([record(0), record(1)], [1000]))


def test_sensitivity_counts_stopped_trials_early_and_finished_ones_late():
    records = [
        record(0, fields={"model.latent_dim": 2}, fd_final=10.0),
        record(2, fields={"model.latent_dim": 2}, status="stopped", fd_final=None),
        record(1, fields={"model.latent_dim": 3}, fd_final=30.0),
        record(3, fields={"model.latent_dim": 3}, status="failed"),
    ]
    two, three = sensitivity(records, SPACE, "fd", 1000)
    assert (two.value, two.trials, two.early, two.finished, two.objective) == ("2", 2, 2.0, 1, 10.0)
    assert (three.trials, three.early, three.objective) == (1, 2.0, 30.0)


def test_a_continuous_field_is_cut_into_thirds_of_its_trials():
    space = read_space({"a": {"loguniform": [0.001, 1.0]}})
    records = [record(n, fields={"a": 0.001 * 2**n}) for n in range(9)]
    groups = sensitivity(records, space, "fd", 1000)
    assert [one.trials for one in groups] == [3, 3, 3]
    assert groups[0].value == "0.001 to 0.004"


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ((1.0, 2.0, 3.0), "best is better with every seed"),
        ((9.0, 9.0, 9.0), "best is worse with every seed"),
        ((1.0, 9.0, 9.0), "best is better with 1 of 3 seeds"),
    ],
)
def test_best_against_default_says_better_only_of_what_holds_with_every_seed(ours, verdict):
    records = [
        *(record(0, phase="confirm", seed=seed, fd_final=value) for seed, value in enumerate(ours, start=1)),
        *(record(1, phase="confirm", seed=seed, fd_final=5.0) for seed in (1, 2, 3)),
        record(0, phase="confirm", seed=4, fd_final=0.0),  # the default has not finished this seed
    ]
    found = against_default(records)
    assert found.seeds == 3
    (distance,) = [one for one in found.measures if one.title == "Held-out FD of samples"]
    assert distance.verdict == verdict


def test_the_csv_has_a_line_a_trial_and_a_column_for_each_drawn_field():
    lists = record(1, fields={"model.encoder_channels": [8, 16]}, status="failed", reason='a, "b"', final_elbo=None)
    rows = list(csv.DictReader(io.StringIO(to_csv([record(0), lists]))))
    assert [row["trial"] for row in rows] == ["search-000-seed0", "search-001-seed0"]
    assert (rows[0]["model.latent_dim"], rows[0]["model.encoder_channels"]) == ("2", "")
    assert (rows[1]["model.encoder_channels"], rows[1]["reason"], rows[1]["final_elbo"]) == ("[8, 16]", 'a, "b"', "")


def test_the_page_names_stopped_and_failed_trials_with_their_reasons_and_loads_nothing_from_elsewhere():
    records = [
        *(record(n) for n in range(4)),
        record(4, status="stopped", reason="ASHA, at the rung of 1,000 images", final_elbo=1.0),
        record(5, status="failed", reason="out of memory: <tensor>"),
        *(record(n, phase="confirm", seed=1) for n in (0, 1)),
    ]
    page = build_page("s", records, SPACE, "fd", (1000,), 2000).html()
    assert "ASHA, at the rung of 1,000 images" in page
    assert "out of memory: &lt;tensor&gt;" in page
    for title in (
        "Ranking",
        "Best against default",
        "Sensitivity",
        "Cost and quality",
        "foretell",
        "Stopped and failed",
    ):
        assert title in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_the_summary_has_the_ranking_and_the_reasons_as_markdown_tables_of_even_rows():
    records = [record(0), record(1), record(2, status="failed", reason="a | b")]
    text = to_markdown(build_page("s", records, SPACE, "fd", (1000,), 2000))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.replace("\\|", "").count("|") for line in table}) == 1 for table in tables)
    assert "1. configuration 1 | 99.0 |" in text
    assert "a \\| b" in text


def test_the_page_can_be_made_of_any_part_of_a_sweep():
    parts = [record(0), record(1, status="unfinished", checks=[], final_elbo=None, seconds=None, fd_final=None)]
    for length in range(len(parts) + 1):
        for chosen in itertools.combinations(parts, length):
            assert "<h1>Sweep s</h1>" in build_page("s", list(chosen), SPACE, "fd", (), 2000).html()
