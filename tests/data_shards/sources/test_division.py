"""How the images of a folder become splits."""

import numpy as np
import pytest
from PIL import Image

from data_shards.io.errors import InputError
from data_shards.sources.division import Division, Rule, divide, name_hash, split_folder
from data_shards.sources.folder import FolderSource, keys_of
from data_shards.sources.portion import Portion, portion

FIVE = Portion(percent=5.0)


def divided(names, *, valid=None, test=None, kept=None) -> Division:
    hashes = np.array([name_hash(name) for name in names], np.uint64)
    return divide(names, hashes, valid=valid, test=test, default=FIVE, kept=kept)


def split_by_name(names, division) -> dict[str, str]:
    return {names[row]: split for split, rows in division.rows.items() for row in rows}


def numbered(count, folder="all"):
    return [f"{folder}/{number:05d}.png" for number in range(count)]


def test_images_without_split_folders_are_divided_90_5_5():
    counts = {split: len(rows) for split, rows in divided(numbered(20_000)).rows.items()}
    assert sum(counts.values()) == 20_000
    # Four standard deviations of a binomial distribution.
    assert counts["valid"] == pytest.approx(1000, abs=125)
    assert counts["test"] == pytest.approx(1000, abs=125)


def test_added_and_removed_images_move_no_other_to_another_split():
    names = numbered(500)
    before = split_by_name(names, divided(names))
    other = names[100:] + numbered(700, "new")
    after = split_by_name(other, divided(other))
    assert {name: after[name] for name in names[100:]} == {name: before[name] for name in names[100:]}


def test_a_number_of_images_is_held_out_exactly_and_stays_where_it_is_when_images_are_added():
    names = numbered(300)
    first = divided(names, valid=Portion(images=30), test=Portion(images=7))
    assert {split: len(rows) for split, rows in first.rows.items()} == {"train": 263, "valid": 30, "test": 7}
    more = sorted(names + numbered(300, "new"))
    rule = Rule.from_json(first.rule.to_json())
    after = split_by_name(more, divided(more, valid=Portion(images=30), test=Portion(images=7), kept=rule))
    assert all(after[name] == split for name, split in split_by_name(names, first).items())
    assert 30 < sum(split == "valid" for split in after.values()) < 100


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "val", "test"),
        ("Training", "VALIDATION", "Testing"),
        ("TRAIN", "Valid", "Test"),
        ("Train", "dev", "tests"),
        ("train_set", "validation-set", "TestSet"),
        ("train_split", "val split", "testsplit"),
    ],
)
def test_folders_named_like_splits_are_the_splits_in_any_spelling(folders):
    names = [f"{folder}/{number}.png" for folder in folders for number in range(4)]
    rows = divided(names).rows
    assert {split: list(places) for split, places in rows.items()} == {
        "train": [0, 1, 2, 3],
        "valid": [4, 5, 6, 7],
        "test": [8, 9, 10, 11],
    }


@pytest.mark.parametrize("folder", ["trainee", "devices", "contest", "settest", "validated", "test_1", "valley"])
def test_folders_whose_names_only_begin_like_splits_are_none(folder):
    assert split_folder(f"{folder}/0.png") is None


def test_split_folders_may_lie_below_others():
    names = [f"photos/{kind}/{split}/{n}.png" for kind in "ab" for split in ("train", "val", "test") for n in range(3)]
    assert {split: len(rows) for split, rows in divided(names).rows.items()} == {"train": 6, "valid": 6, "test": 6}


def test_a_class_named_train_among_others_is_no_split():
    names = numbered(300, "train") + numbered(300, "bus")
    division = divided(names)
    assert sum(map(len, division.rows.values())) == 600
    assert "300 of 600 images lie in train, not all" in division.found
    assert len({names[row].split("/")[0] for row in division.rows["train"]}) == 2


def test_a_split_without_a_folder_is_taken_from_training_alone():
    names = numbered(400, "train") + numbered(50, "test")
    division = divided(names)
    assert {names[row] for row in division.rows["test"]} == set(names[400:])
    assert {names[row].split("/")[0] for row in division.rows["valid"]} == {"train"}


def test_an_option_for_a_split_that_has_a_folder_is_refused():
    with pytest.raises(InputError, match="valid: val holds this split already"):
        divided(numbered(9, "train") + numbered(9, "val"), valid=FIVE)


def test_images_beside_the_folders_of_finished_shards_are_refused():
    rule = divided(numbered(9, "train") + numbered(9, "val")).rule
    with pytest.raises(InputError, match=r"new\.png and 0 more images lie outside the folders named like splits"):
        divided([*numbered(9, "train"), "new.png"], kept=rule)


@pytest.mark.parametrize(
    ("count", "splits"), [(1, {"train"}), (2, {"train", "valid"}), (3, {"train", "valid", "test"})]
)
def test_of_few_images_training_gets_one_first_then_valid_then_test(count, splits):
    for start in range(50):
        names = [f"{start}-{number}.png" for number in range(count)]
        rows = divided(names).rows
        assert rows.keys() == splits
        assert sum(map(len, rows.values())) == count


def test_nothing_is_held_out_where_nothing_is_asked_for():
    assert divided(numbered(50), valid=Portion(images=0), test=Portion(percent=0.0)).rows.keys() == {"train"}


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        (Portion(images=50), "valid: 50 does not leave a training image"),
        (Portion(percent=100.0), "valid: 100% are held out"),
    ],
)
def test_holding_out_all_images_is_refused(valid, message):
    with pytest.raises(InputError, match=message):
        divided(numbered(50), valid=valid, test=Portion(images=0))


@pytest.mark.parametrize("text", ["-1", "5 images", "0.05", "101%", "%", "5,5%", "", "1e3"])
def test_what_is_neither_a_number_nor_a_percentage_is_refused(text):
    with pytest.raises(InputError, match=r"valid: .* is not a number of images"):
        portion(text, "valid")


def test_a_percentage_of_idx_files_is_rounded_but_is_at_least_one_image():
    assert [portion("2.5%", "valid").of(total) for total in (10, 100, 1000)] == [1, 2, 25]
    assert portion("0%", "valid").of(10) == 0


def test_keys_do_not_depend_on_the_order_of_files_and_differ_for_names_that_become_the_same():
    names = ["一二/三.png", "四五/六.png", "a/x y.png", "a/x_y.png", "b.jpg", "b.png", "plain.png", "bad\udcff.png"]
    hashes = np.array([name_hash(name) for name in names], np.uint64)
    keys = keys_of(names, hashes)
    assert len(set(keys)) == len(names)
    assert keys[6] == "plain"
    assert all("." not in key and key.isascii() for key in keys)
    assert keys_of(names[::-1], hashes[::-1]) == keys[::-1]
    in_ascii = [name.encode(errors="surrogateescape").decode("ascii", "surrogateescape") for name in names]
    assert keys_of(in_ascii, np.array([name_hash(name) for name in in_ascii], np.uint64)) == keys


def test_the_notes_say_what_was_found_decided_and_left_out(tmp_path):
    for name in ("train/a.png", "train/b.png", "val/c.png", "Test/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert FolderSource(tmp_path).notes() == [
        f"{tmp_path}: 4 images, divided by its folders Test, train, val: train 2, valid 1, test 1",
        f"{tmp_path}: left out: 1 not images (.txt)",
    ]
