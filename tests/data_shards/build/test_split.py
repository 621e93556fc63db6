"""Finished shards are divided without their source."""

import contextlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.folder_builds import write_image
from support.running import ROOT, run_module
from support.shard_cases import ArraySource, build_arrays

from data_shards import InputError, Manifest, ShardStream, build_shards
from data_shards.build.leftovers import remove_shards
from data_shards.build.split import split_shards
from data_shards.io.atomic import write_json
from data_shards.io.lease import lease
from data_shards.sources.portion import Portion

OLD_SHARDS = ROOT / "tests/old_format/shards"


def images_by_key(folder: Path, split: str) -> dict[str, bytes]:
    """The streamed pixels of each sample."""
    manifest = Manifest.load(folder)
    keys = []
    for shard in manifest.shards_of(split):
        keys += json.loads((folder / shard.index_name).read_text())["members"]["keys"]
    batches = ShardStream(folder, split=split, global_batch=64, shuffle=False)
    pixels = np.concatenate([batch.image.numpy() for batch in batches])
    return {key: image.tobytes() for key, image in zip(keys, pixels, strict=True)}


@pytest.fixture
def shards(tmp_path):
    build_arrays(tmp_path / "shards", ArraySource({"train": 200, "extra": 12}), shard_images=30, window=3)
    return tmp_path / "shards"


def test_each_image_is_in_one_split_with_its_pixels_and_its_class(shards):
    before = images_by_key(shards, "train")
    split_shards(shards, {"test": Portion(images=9), "valid": Portion(percent=20.0)})
    manifest = Manifest.load(shards)
    assert manifest.splits == ("train", "valid", "test", "extra")
    parts = [images_by_key(shards, split) for split in ("train", "valid", "test")]
    assert len(parts[2]) == 9
    assert len(parts[1]) == pytest.approx(40, abs=20)
    assert sum(map(len, parts)) == 200
    assert {**parts[0], **parts[1], **parts[2]} == before
    with tarfile.open(shards / manifest.shards_of("valid")[0].name) as tar:
        names = tar.getnames()
    assert names[1] == names[0].replace(".npy", ".cls")


def test_divided_shards_are_verified_and_nothing_of_the_undivided_ones_is_left(shards):
    done = run_module("data_shards", "split", str(shards), "--valid", "10%", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert run_module("data_shards", "verify", str(shards), "--workers", "1").returncode == 0
    named = {name for shard in Manifest.load(shards).shards for name in (shard.name, shard.index_name)}
    assert {path.name for path in shards.glob("[!.]*")} == named | {"manifest.json", "recipe.json"}


def test_a_division_that_was_interrupted_leaves_nothing_beside_the_next_one(shards, tmp_path, monkeypatch):
    shutil.copytree(shards, tmp_path / "clean")

    def interrupt(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_shards.build.split.atomic.write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            split_shards(shards, {"valid": Portion(percent=50.0)})
    (shards / ".train-1-000000.tar.4000000.partial").write_bytes(b"of a killed process")
    for folder in (shards, tmp_path / "clean"):
        split_shards(folder, {"valid": Portion(percent=10.0)})
    names = [{path.name for path in folder.rglob("*")} for folder in (shards, tmp_path / "clean")]
    assert names[0] == names[1]


def test_a_division_that_was_interrupted_before_its_last_shard_was_removed_is_finished(shards, tmp_path, monkeypatch):
    shutil.copytree(shards, tmp_path / "clean")
    made = split_shards(tmp_path / "clean", {"valid": Portion(percent=10.0)})

    def interrupt(out, names):
        remove_shards(out, sorted(names)[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_shards.build.split.leftovers.remove_shards", interrupt)
        with pytest.raises(KeyboardInterrupt):
            split_shards(shards, {"valid": Portion(percent=10.0)})
    with pytest.raises(InputError, match="has a split valid of"):
        split_shards(shards, {"valid": Portion(percent=20.0)})
    assert split_shards(shards, {"valid": Portion(percent=10.0)}) == made
    names = [{path.name for path in folder.rglob("*")} for folder in (shards, tmp_path / "clean")]
    assert names[0] == names[1]


def test_a_build_is_refused_as_soon_as_the_divided_shards_have_their_manifest(tmp_path, monkeypatch):
    for number in range(30):
        write_image(tmp_path / "source" / f"{number}.png", number)
    arguments = {"source": tmp_path / "source", "size": 8, "valid": 0, "test": 0}
    build_shards("folder", tmp_path / "out", **arguments)

    def interrupt(path, content):
        write_json(path, content)
        if path.name == "manifest.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_shards.build.split.atomic.write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            split_shards(tmp_path / "out", {"valid": Portion(images=5)})
    with pytest.raises(InputError, match="holds shards that `split` has divided since"):
        build_shards("folder", tmp_path / "out", **arguments, update=True)


@pytest.mark.parametrize("name", ["train-000002.tar", "train-000002.json"])
def test_a_pipe_among_shards_is_named_and_not_waited_for(shards, name):
    (shards / name).unlink()
    os.mkfifo(shards / name)
    with pytest.raises(InputError, match=rf"{name}: is a pipe or a device; use a file"):
        split_shards(shards, {"valid": Portion(images=20)})


def test_shards_that_another_process_divides_meanwhile_are_not_divided_twice(shards, monkeypatch):
    @contextlib.contextmanager
    def waited(*words, **more):
        monkeypatch.setattr("data_shards.build.split.lease", lease)
        split_shards(shards, {"test": Portion(images=20)})
        with lease(*words, **more) as held:
            yield held

    monkeypatch.setattr("data_shards.build.split.lease", waited)
    with pytest.raises(InputError, match="another process has changed these shards meanwhile; start the same command"):
        split_shards(shards, {"valid": Portion(images=20)})
    assert Manifest.load(shards).splits == ("train", "test", "extra")
    assert run_module("data_shards", "verify", str(shards), "--workers", "1").returncode == 0


def test_a_split_that_is_there_is_not_made_again(shards):
    split_shards(shards, {"valid": Portion(images=20)})
    with pytest.raises(InputError, match="has a split valid of 20 images already"):
        split_shards(shards, {"valid": Portion(images=20)})
    split_shards(shards, {"test": Portion(images=20)})
    assert Manifest.load(shards).num_samples("train") == 160


def test_shards_of_earlier_versions_are_divided(tmp_path):
    folder = Path(shutil.copytree(OLD_SHARDS, tmp_path / "shards"))
    content = Manifest.load(folder)
    missing = next(split for split in ("test", "valid", "other") if split not in content.splits)
    before = images_by_key(folder, "train")
    split_shards(folder, {missing: Portion(images=20)})
    assert {**images_by_key(folder, "train"), **images_by_key(folder, missing)} == before
    assert run_module("data_shards", "verify", str(folder), "--workers", "1").returncode == 0


def test_a_build_into_divided_shards_is_refused(tmp_path):
    for number in range(30):
        write_image(tmp_path / "source" / f"{number}.png", number)
    arguments = {"source": tmp_path / "source", "size": 8, "valid": 0, "test": 0}
    build_shards("folder", tmp_path / "out", **arguments)
    split_shards(tmp_path / "out", {"valid": Portion(images=5)})
    with pytest.raises(InputError, match="holds shards that `split` has divided since"):
        build_shards("folder", tmp_path / "out", **arguments)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "error: --valid: nothing is to be taken out; give a number or a percentage, such as 5%\n"),
        (["--valid", "200"], "error: --valid: 200 does not leave a training image of 200; use less\n"),
        (["--test", "half"], "error: --test: 'half' is not a number of images, such as 500, or a percentage"),
    ],
)
def test_a_wrong_portion_is_refused_and_nothing_changes(shards, words, line):
    before = Manifest.load(shards)
    done = run_module("data_shards", "split", str(shards), *words)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert Manifest.load(shards) == before


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("my shards", "split 'my shards' --valid 5%` makes it, without"),
        ("file:///data/shards/manifest.json", "split /data/shards --valid 5%` makes it, without"),
        ("s3://bucket/shards", "split FOLDER --valid 5%` makes it, where the folder lies, without"),
        ("pipe:ssh host cat {}", "split FOLDER --valid 5%` makes it, where the folder lies, without"),
    ],
)
def test_the_command_for_a_missing_split_is_one_that_runs(shards, address, command):
    assert command in Manifest.load(shards).lacks("valid", address)


def test_the_trainer_names_the_command_for_a_held_out_split_that_is_missing(shards, tmp_path):
    words = ["--data.shards", str(shards), "--runs", str(tmp_path), "--name", "x"]
    for more in ([], ["--dry-run"]):
        done = run_module("trainer", *words, *more)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"has no split 'valid'; it has train, extra; `python -m data_shards split {shards} --valid 5%`" in (
            done.stderr
        )
    command = done.stderr.split("`")[1].split()
    assert run_module(*command[2:]).returncode == 0
    assert run_module("trainer", *words, "--dry-run").returncode == 0
