"""One table, written for a terminal, in Markdown and as CSV."""

import csv
import io

from data_shards.io.tables import Table

TABLE = Table(head=("name", "KL(q || p)"), rows=[("a, b", "1.5"), ("longer", "10")])


def test_columns_are_aligned_on_a_terminal():
    assert TABLE.to_text() == "name    KL(q || p)\na, b    1.5\nlonger  10"


def test_a_head_without_titles_is_left_out_of_the_terminal():
    assert Table(head=("", ""), rows=[("time", "1 h"), ("disk space", "2 GB")]).to_text() == (
        "time        1 h\ndisk space  2 GB"
    )


def test_a_bar_in_a_cell_is_escaped_in_markdown():
    assert TABLE.to_markdown().splitlines()[:2] == ["| name | KL(q \\|\\| p) |", "| --- | --- |"]


def test_csv_gives_every_cell_back():
    assert list(csv.reader(io.StringIO(TABLE.to_csv()))) == [list(TABLE.head), *map(list, TABLE.rows)]


def test_a_caption_stands_above_the_table():
    captioned = Table(head=("a",), rows=[("1",)], caption="What it shows.")
    assert captioned.to_text().startswith("What it shows.\n")
    assert captioned.to_markdown().startswith("*What it shows.*\n\n| a |")
