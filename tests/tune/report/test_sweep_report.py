"""The report of a sweep: its page, its summary and its CSV."""

import csv
import io
import itertools

from support.sweep_cases import record

from tune.report.report import build_page, summary
from tune.report.trial_tables import to_csv, trial_table
from tune.space import read_space

SPACE = read_space({"model.latent_dim": {"choice": [2, 3, 4, 5, 6, 7]}})


def test_the_csv_has_a_line_a_trial_and_a_column_for_each_drawn_field():
    lists = record(1, fields={"model.encoder_channels": [8, 16]}, status="failed", reason='a, "b"', final_elbo=None)
    rows = list(csv.DictReader(io.StringIO(to_csv([record(0), lists]))))
    assert [row["trial"] for row in rows] == ["search-000-seed0", "search-001-seed0"]
    assert (rows[0]["model.latent_dim"], rows[0]["model.encoder_channels"]) == ("2", "")
    assert (rows[1]["model.encoder_channels"], rows[1]["reason"], rows[1]["final_elbo"]) == ("[8, 16]", 'a, "b"', "")


def test_a_further_measure_is_a_column_of_the_csv_and_of_the_page():
    records = [record(0), record(1, further={"kernel_distance": 0.12345})]
    rows = list(csv.DictReader(io.StringIO(to_csv(records))))
    assert [row["kernel_distance"] for row in rows] == ["", "0.12345"]
    assert trial_table(records).head[-1] == "Kernel ↓"
    assert [row[-1] for row in trial_table(records).rows] == ["-", "0.1235"]


def test_the_page_names_stopped_and_failed_trials_with_their_reasons_and_loads_nothing_from_elsewhere():
    records = [
        *(record(n) for n in range(4)),
        record(4, status="stopped", reason="asha, at the rung of 8 % of its budget", final_elbo=1.0),
        record(5, status="failed", reason="out of memory: <tensor>"),
        record(0, phase="confirm", seed=1, fields=record(3).fields),
        record(1, phase="confirm", seed=1),
    ]
    page = build_page("s", records, SPACE, "fd", 2000).html()
    assert "asha, at the rung of 8 % of its budget" in page
    assert "out of memory: &lt;tensor&gt;" in page
    for title in (
        "Ranking",
        "Best against default",
        "Sensitivity",
        "Cost and quality",
        "predict",
        "Stopped and failed",
    ):
        assert title in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_columns_of_what_was_not_measured_are_left_out():
    records = [record(n, fd_final=None, fd_stage1=None, fd_reconstruction=None) for n in range(4)]
    page = build_page("s", records, SPACE, "elbo", 2000)
    heads = [table.head for section in page.sections for table in section.tables]
    assert any("ELBO" in head for head in heads)
    assert not any(title.startswith("FD") for head in heads for title in head)
    (early,) = [section for section in page.sections if section.key == "early"]
    assert {row[2] for row in early.tables[0].rows} == {"4"}


def test_the_summary_has_the_ranking_and_the_reasons_as_markdown_tables_of_even_rows():
    records = [record(0), record(1), record(2, status="failed", reason="a | b")]
    text = summary(build_page("s", records, SPACE, "fd", 2000))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.replace("\\|", "").count("|") for line in table}) == 1 for table in tables)
    assert "1. configuration 1 | 99.0 |" in text
    assert "a \\| b" in text


def test_the_page_can_be_made_of_any_part_of_a_sweep():
    parts = [record(0), record(1, status="unfinished", checks=(), final_elbo=None, seconds=None, fd_final=None)]
    for length in range(len(parts) + 1):
        for chosen in itertools.combinations(parts, length):
            assert "<h1>Sweep s</h1>" in build_page("s", list(chosen), SPACE, "fd", 2000).html()


def test_the_page_of_a_thousand_trials_shows_the_first_rows_and_says_where_the_others_are():
    fields = [{"model.latent_dim": 2 + number % 6} for number in range(1000)]
    records = [record(n, status="finished" if n % 2 else "stopped", fields=fields[n]) for n in range(1000)]
    page = build_page("s", records, SPACE, "elbo", 2000).html()
    assert page.count("search-") < 500
    assert len(page) < 1_000_000
    for what in ("500 configurations", "500 trials", "1,000 trials"):
        assert f"The first 40 of {what} are shown; all are in sweep.csv." in page
    assert len(to_csv(records).splitlines()) == 1001
