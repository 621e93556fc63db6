"""Builds that cannot be: nothing of the user's is touched, and nothing is left behind."""

import contextlib
import json

import pytest
from support.folder_builds import build, digests, write_image

from data_shards.build.recipe import agree_on_recipe, read_recipe
from data_shards.build.request import BuildRequest
from data_shards.io.errors import InputError
from data_shards.io.lease import LeaseHeld, lease


@pytest.mark.parametrize("name", ["recipe.json", "manifest.json"])
@pytest.mark.parametrize("content", ['{"flour": 500}', "[1, 2]", "salt"])
def test_a_users_file_of_our_names_is_left_alone(name, content, tmp_path):
    write_image(tmp_path / "images/one.png", 1)
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}.*of no build; choose another folder"):
        build(tmp_path / "images", out, valid=0, test=0)
    assert (out / name).read_text() == content


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 20_000}, "size: 20000 is too large"),
        ({"background": ""}, "background: '' is not a colour"),
        ({"background": "rgb(300,0,0)"}, "background: .* is not a colour"),
        ({"valid": "9" * 30}, "valid: .* is not a number of images"),
        ({"size": 13_000, "shard_images": 10}, "GB are needed"),
    ],
    ids=lambda value: "",
)
def test_options_that_cannot_be_leave_nothing_behind(options, said, tmp_path, monkeypatch):
    monkeypatch.setattr("data_shards.build.builder.free_bytes", lambda folder: 10**6)
    write_image(tmp_path / "images/one.png", 1)
    with pytest.raises(InputError, match=said):
        build(tmp_path / "images", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_refuses_what_the_build_would_refuse(tmp_path):
    for number in range(30):
        write_image(tmp_path / f"images/{number}.png", number)
    build(tmp_path / "images", tmp_path / "out", valid=5)
    before = digests(tmp_path / "out")
    asked = {"dataset": "folder", "source": tmp_path / "images", "size": 8, "shard_images": 10}
    with pytest.raises(InputError, match=r"holds shards built with another --valid \(5, not 20%\)"):
        BuildRequest(out=tmp_path / "out", valid="20%", **asked).estimate()
    assert BuildRequest(out=tmp_path / "out", valid=5, **asked).estimate().images["valid"] == 5
    assert digests(tmp_path / "out") == before


def test_a_build_that_waited_for_one_with_other_options_is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "images/one.png", 1)

    @contextlib.contextmanager
    def waited(*words, **more):
        monkeypatch.setattr("data_shards.build.builder.lease", lease)
        build(tmp_path / "images", tmp_path / "out", size=8)
        with lease(*words, **more) as held:
            yield held

    monkeypatch.setattr("data_shards.build.builder.lease", waited)
    with pytest.raises(InputError, match=r"holds shards built with another height \(8, not 16\)"):
        build(tmp_path / "images", tmp_path / "out", size=16)
    build(tmp_path / "images", tmp_path / "clean", size=8)
    assert digests(tmp_path / "out") == digests(tmp_path / "clean")


@pytest.mark.parametrize(
    ("at_work", "parts", "is_alone"),
    [("", 2, False), ("part-0-of-3", 2, False), ("part-0-of-3", 1, False), ("part-1-of-2", 2, True)],
)
def test_only_parts_of_one_build_work_in_a_folder_at_once(tmp_path, at_work, parts, is_alone):
    write_image(tmp_path / "images/one.png", 1)
    out = tmp_path / "out"
    out.mkdir()
    request = BuildRequest(dataset="folder", source=tmp_path / "images", out=out, size=8, parts=parts)
    with lease(out, at_work), contextlib.nullcontext() if is_alone else pytest.raises(LeaseHeld, match="in use by"):
        request.build()
    assert any(out.glob("*.tar")) == is_alone
    request.build()  # the other has ended
    assert any(out.glob("*.tar"))


def test_files_of_a_part_that_begins_meanwhile_are_those_of_the_same_build(tmp_path):
    write_image(tmp_path / "images/one.png", 1)
    build(tmp_path / "images", tmp_path / "clean")
    wanted = read_recipe(tmp_path / "clean")

    def planned():
        build(tmp_path / "images", tmp_path / "out")
        yield "train-000000.tar"

    assert agree_on_recipe(tmp_path / "out", wanted, planned()) == wanted


@pytest.mark.parametrize(
    "division",
    [
        "halves",
        ["names"],
        {"by": "names"},
        {"by": "luck", "hashes": {}},
        {"by": "names", "hashes": {"valid": ["0", "end"]}},
        {"by": "names", "hashes": {"valid": ["0"]}},
        {"by": "names", "hashes": {"valid": ["0", "10000000000000001"]}},
        {"by": "names", "hashes": {"spare": ["0", "ff"]}},
    ],
    ids=str,
)
def test_a_damaged_record_of_the_division_is_told(tmp_path, division):
    write_image(tmp_path / "images/one.png", 1)
    build(tmp_path / "images", tmp_path / "out")
    recipe = json.loads((tmp_path / "out/recipe.json").read_text())
    (tmp_path / "out/recipe.json").write_text(json.dumps({**recipe, "division": division}))
    with pytest.raises(InputError, match=r"out: the division that its recipe\.json records is damaged"):
        build(tmp_path / "images", tmp_path / "out")


def test_an_archive_in_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"images\.zip is a file; unpack an archive"):
        build(tmp_path / "images.zip", tmp_path / "out")
