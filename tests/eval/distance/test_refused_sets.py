"""What `python -m eval fid A B` does not compare: one line each, which names the set and what would be right."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from support.distance_extractor import TINY
from support.picture_folders import pictures, write_pictures

pytestmark = pytest.mark.usefixtures("own_cache")


def test_too_few_images_for_a_measure_name_the_measure(place, mistake, tmp_path):
    few = write_pictures(tmp_path / "few", pictures(12, 4))
    line = mistake("fid", few, place / "b", *TINY, "--also", "infinite")
    assert line == "error: infinite: 12 images are too few to extrapolate from; use at least 22"


def test_unreadable_images_are_counted_and_refused_unless_they_may_be_left_out(place, distance, mistake, tmp_path):
    shutil.copytree(place / "a", tmp_path / "a")
    for number in range(2):
        (tmp_path / "a" / f"bad-{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    line = mistake("fid", tmp_path / "a", place / "b", *TINY)
    assert "2 of 38 images cannot be read (bad-0.png" in line
    assert "--skip-bad 2" in line
    expected, _ = distance(place / "a", place / "b", *TINY)
    found, printed = distance(tmp_path / "a", place / "b", *TINY, "--skip-bad", "2")
    assert found == pytest.approx(expected, rel=1e-6)
    assert "left out: 2 of 38 images cannot be read" in printed
    assert f"36 images of {tmp_path / 'a'}" in printed
    kept = ("fid", tmp_path / "a", place / "b", *TINY, "--out", tmp_path / "out")
    assert "measured before" not in distance(*kept[1:], "--skip-bad", "2")[1]
    assert "measured before" in distance(*kept[1:], "--skip-bad", "2")[1]
    assert "2 of 38 images cannot be read" in mistake(*kept)


def no_pickle(path):
    np.savez(path, arr_0=np.array([{"a": 1}], dtype=object))


def nested(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("more/images.zip", b"PK")


@pytest.mark.parametrize(
    ("make_set", "message"),
    [
        (lambda p: p.mkdir(), "no images in it"),
        (lambda p: write_pictures(p, pictures(1, 0)), "one image"),
        (lambda p: None, "does not exist"),
        (lambda p: np.savez(p.with_suffix(".npz"), arr_0=np.zeros((4, 8, 8, 3), np.float32)), "uint8 in 0 to 255"),
        (lambda p: np.savez(p.with_suffix(".npz"), arr_0=np.zeros((4, 3, 8, 8), np.uint8)), "(N, H, W, 3)"),
        (lambda p: np.savez(p.with_suffix(".npz"), a=np.zeros((4, 8, 8)), b=np.zeros((4, 8, 8))), "choose one as"),
        (lambda p: no_pickle(p.with_suffix(".npz")), "Python objects"),
        (lambda p: p.with_suffix(".npz").write_text("not an array"), "not an array file"),
        (lambda p: p.with_suffix(".npz").write_bytes(b"PK\x03\x04cut"), "cut short"),
        (lambda p: p.with_suffix(".zip").write_bytes(b"PK"), "not a zip archive"),
        (lambda p: p.with_suffix(".tar").write_bytes(b"x" * 600), "not a tar"),
        (lambda p: p.with_suffix(".txt").write_text("x"), "none of what images are read from"),
        (lambda p: tarfile.open(p.with_suffix(".gz"), "w:gz").close(), "no images in it"),
        (lambda p: nested(p.with_suffix(".zip")), "1 archives in it, which are not opened"),
        (lambda p: np.save(p.with_suffix(".npy"), np.zeros((40, 32, 3), np.uint8)), "one image, or 40 grey ones"),
    ],
)
def test_what_is_no_set_of_images_is_one_line(place, mistake, tmp_path, make_set, message):
    make_set(tmp_path / "x")
    word = next(iter([*tmp_path.glob("x.*"), tmp_path / "x"]))
    assert message in mistake("fid", word, place / "b", *TINY)
    assert message in mistake("fid", place / "b", word, *TINY)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("A",), "1 sets of images"),
        (("A", "B", "A"), "3 sets of images"),
        (("A", "B", "--run", "runs/x"), "--run"),
        ((), "--run is missing"),
        (("A", "B", "--part", "0/2"), "--out"),
        (("A", "tar-{0..3}.tar"), "missing"),
        (("A", "shards:A/test"), "manifest.json"),
        (("A", "run:nowhere"), "error: run:nowhere: 'nowhere' is no run"),
        (("https://example.org/sets/a.rar", "B"), "shards:ADDRESS/SPLIT"),
        (("s3://bucket/a-*.tar", "B"), "give a range"),
        (("", "B"), "SET: empty"),
        (("A", "B", "--temperature", "0.5"), "--temperature: is of samples of a run"),
        (("A", "B", "--split", "valid"), "--split: goes with --run and --from, not with two sets"),
        (("A", "B", "--n", "1"), "--n: 1 is not a whole number of at least 2"),
        (("A", "B", "--dry-run"), "--dry-run"),
        (("A", "B", "--out", "inception-2015-12-05.pt"), "--out: inception-2015-12-05.pt/fid.json cannot be made"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(place, mistake, monkeypatch, words, message):
    monkeypatch.chdir(place)
    assert message in mistake("fid", *(word.lower() if word in ("A", "B") else word for word in words), *TINY)
