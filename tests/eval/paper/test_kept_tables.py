"""Tables of single commands are kept by name and shown in RESULTS.md with the commands that made them."""

import dataclasses
import json

import pytest
from support.evidence_cases import evidence, plan

from data_shards.io.errors import InputError
from eval.paper.kept_tables import KeptTable, keep_tables, read_tables, tables_file
from eval.paper.pages import Chapter, write_results
from eval.paper.record import KEPT


def table(name="peers", value="637.5 ± 12.9 (3)"):
    return KeptTable(
        name=name,
        title=f"Of {name}",
        text=("Ten thousand samples.",),
        commands=("python -m eval fid --run RUN", "python tests/benchmarks/distance_tables.py --runs a b"),
        head=("model", "distance"),
        rows=(("ours", value),),
    )


def test_a_table_that_is_made_again_takes_the_place_of_the_old_one(tmp_path):
    keep_tables(tmp_path, "mnist", [table("first"), table("second")])
    keep_tables(tmp_path, "mnist", [table("third"), table("first", "1.0")])
    found = read_tables(tmp_path, "mnist")
    assert [(one.name, one.rows[0][1]) for one in found] == [
        ("first", "1.0"),
        ("second", "637.5 ± 12.9 (3)"),
        ("third", "637.5 ± 12.9 (3)"),
    ]


def test_what_is_read_is_what_was_written(tmp_path):
    keep_tables(tmp_path, "mnist", [table()])
    (found,) = read_tables(tmp_path, "mnist")
    assert dataclasses.replace(found, commit="") == table()


def test_a_data_set_without_tables_has_none(tmp_path):
    assert read_tables(tmp_path, "mnist") == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content | {"format": 2},
        lambda content: content | {"tables": [content["tables"][0] | {"rows": [["one cell"]]}]},
        lambda content: content | {"tables": [{"name": "no more"}]},
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, damage):
    keep_tables(tmp_path, "mnist", [table()])
    path = tables_file(tmp_path, "mnist")
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=r"mnist-tables\.json: holds no tables"):
        read_tables(tmp_path, "mnist")


def test_results_show_a_table_with_its_commands_below_the_exhibits(tmp_path):
    made = plan()
    known = evidence(made, {("ours", 0): {}})
    chapter = Chapter(evidence=known, exhibits={}, missing=[], pictures=tmp_path, tables=[table()])
    write_results(tmp_path / "RESULTS.md", [chapter], "python -m eval reproduce all", "1234")
    text = (tmp_path / "RESULTS.md").read_text()
    section = text[text.index("### Of peers") :]
    assert "Ten thousand samples." in section
    assert "| ours | 637.5 ± 12.9 (3) |" in section
    for command in table().commands:
        assert f"`{command}`" in section


def test_the_tables_of_the_checkout_are_read():
    names = [one.name for one in read_tables(KEPT, "fashion-mnist")]
    assert len(set(names)) == len(names) > 0
