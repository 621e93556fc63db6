"""A build is what its source says now: every change ends in the shards of a clean build, or in one line."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.celeba_tree import write_celeba
from support.folder_builds import build, digests, write_image
from support.running import run_module

from data_shards import InputError, Manifest, ShardStream, build_shards
from data_shards.decoding.decode import VERSION


@pytest.fixture
def source(tmp_path):
    """95 images in two class folders."""
    for number in range(95):
        write_image(tmp_path / "source" / "ab"[number % 2] / f"{number:03d}.png", number)
    return tmp_path / "source"


def written_since(folder: Path, before: dict[Path, int]) -> set[str]:
    return {path.name for path in folder.glob("*.tar") if before.get(path) != path.stat().st_mtime_ns}


def add_one(source):
    write_image(source / "a" / "new.png", 1000)


def add_many(source):
    for number in range(60):
        write_image(source / "c" / f"{number}.png", 2000 + number)


def remove_some(source):
    for path in sorted(source.rglob("*.png"))[:30]:
        path.unlink()


def replace_one(source):
    write_image(source / "a" / "000.png", 3000)


def replace_one_at_the_same_time(source):
    """The same name and time, another size."""
    path = source / "a" / "000.png"
    status = path.stat()
    Image.new("RGB", (9, 9)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename_one(source):
    (source / "a" / "000.png").rename(source / "b" / "renamed.png")


def swap_two(source):
    first, second = source / "a" / "000.png", source / "b" / "001.png"
    first.rename(source / "x")
    second.rename(first)
    (source / "x").rename(second)


def change_the_format(source):
    Image.open(source / "a" / "000.png").save(source / "a" / "000.bmp")
    (source / "a" / "000.png").unlink()


CHANGES = [
    add_one,
    add_many,
    remove_some,
    replace_one,
    replace_one_at_the_same_time,
    rename_one,
    swap_two,
    change_the_format,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused_in_one_line_and_an_update_ends_in_the_shards_of_a_clean_build(source, tmp_path, change):
    out = tmp_path / "out"
    build(source, out)
    before = digests(out)
    change(source)
    with pytest.raises(InputError, match=r"out: .*the source has changed since \(.*\); --update brings the shards"):
        build(source, out)
    assert digests(out) == before
    build(source, out, update=True)
    build(source, tmp_path / "clean")
    assert digests(out) == digests(tmp_path / "clean")
    assert build(source, out) == Manifest.load(tmp_path / "clean")  # nothing is left to do


def test_the_line_counts_what_has_changed(source, tmp_path):
    build(source, tmp_path / "out")
    add_many(source)
    remove_some(source)
    write_image(source / "b" / "093.png", 3000)
    with pytest.raises(InputError, match=r"\(60 added, 30 removed, 1 replaced of 125 images\)"):
        build(source, tmp_path / "out")


def test_touched_and_copied_images_are_the_same_images(source, tmp_path):
    out = tmp_path / "out"
    build(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    for path in source.rglob("*.png"):
        os.utime(path, (0, 0))
    build(source, out)
    build(shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile), out)
    assert written_since(out, before) == set()


def test_bytes_that_changed_under_the_same_size_and_time_are_found_by_content(source, tmp_path):
    out, path = tmp_path / "out", source / "a" / "000.bmp"
    Image.new("RGB", (9, 9), "red").save(path)
    build(source, out)
    status = path.stat()
    Image.new("RGB", (9, 9), "blue").save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert build(source, out)
    with pytest.raises(InputError, match="the source has changed since"):
        build(source, out, check_content=True)
    build(source, out, check_content=True, update=True)
    build(source, tmp_path / "clean")
    assert digests(out) == digests(tmp_path / "clean")


def test_an_update_writes_only_the_shards_that_change(tmp_path):
    for number in range(400):
        write_image(tmp_path / "source" / f"{number}.png", number)
    out = tmp_path / "out"
    build(tmp_path / "source", out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    write_image(tmp_path / "source" / "new.png", 1000)
    build(tmp_path / "source", out, update=True)
    # The shard that gets the image; and, where it takes one shard more, that one and the one that is divided.
    assert 1 <= len(written_since(out, before)) <= 3 < len(before)


def test_an_image_never_moves_between_splits_in_updates(source, tmp_path):
    out = tmp_path / "out"

    def split_of():
        names = {}
        for shard in Manifest.load(out).shards:
            keys = json.loads((out / shard.index_name).read_text())["members"]["keys"]
            names.update(dict.fromkeys(keys, shard.split))
        return names

    build(source, out, valid=10, test=5)
    before = split_of()
    assert sorted(before.values()).count("valid") == 10
    add_many(source)
    build(source, out, valid=10, test=5, update=True)
    after = split_of()
    assert len(after) == 155
    assert {key: after[key] for key in before} == before


def test_another_source_is_refused_and_named(source, tmp_path):
    build(source, tmp_path / "out")
    write_image(tmp_path / "other" / "x.png", 1)
    with pytest.raises(InputError, match=r"another source, .*/source, was built here \(1 added, 95 removed of 1"):
        build(tmp_path / "other", tmp_path / "out")


def test_another_source_is_refused_where_the_shards_of_the_first_are_half_finished(source, tmp_path):
    build(source, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    for number in range(95):
        write_image(tmp_path / "other" / "ab"[number % 2] / f"{number:03d}.png", number + 500)
    with pytest.raises(InputError, match=r"another source, .*/source, was built here \(95 replaced of 95 images\)"):
        build(tmp_path / "other", tmp_path / "out")
    build(tmp_path / "other", tmp_path / "out", update=True)
    build(tmp_path / "other", tmp_path / "clean")
    assert digests(tmp_path / "out") == digests(tmp_path / "clean")


def test_a_source_that_changes_during_an_interrupted_build_is_not_mixed(source, tmp_path):
    out = tmp_path / "out"
    build(source, out)
    (out / "manifest.json").unlink()  # as if the last shard had not been finished
    recipe = json.loads((out / "recipe.json").read_text())
    assert "finished" not in recipe
    replace_one(source)
    add_many(source)
    build(source, out)
    build(source, tmp_path / "clean")
    assert digests(out) == digests(tmp_path / "clean")


def test_an_interrupted_update_goes_on_and_keeps_the_division(source, tmp_path):
    out = tmp_path / "out"
    build(source, out, valid=10)
    add_many(source)
    (source / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match="1 unusable images where 0 are allowed"):
        build(source, out, valid=10, update=True)
    with pytest.raises(InputError, match=r"no manifest\.json there"):  # no reader takes it for whole
        Manifest.load(out)
    (source / "broken.png").unlink()
    made = build(source, out, valid=10, update=True)
    assert made.num_samples("valid") > 10


def test_after_verify_found_damage_a_build_writes_exactly_the_damaged_shards(source, tmp_path):
    out = tmp_path / "out"
    build(source, out)
    whole = digests(out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    with (out / "train-000003.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"damage")
    (out / "train-000005.json").write_text("{}")
    (out / "train-000001.tar").unlink()
    assert run_module("data_shards", "verify", str(out), "--workers", "1").returncode == 2
    build(source, out)
    assert written_since(out, before) == {"train-000001.tar", "train-000003.tar", "train-000005.tar"}
    assert digests(out) == whole
    assert run_module("data_shards", "verify", str(out), "--workers", "1").returncode == 0


def test_a_build_mends_what_verify_finds_where_a_former_manifest_was_copied_back(source, tmp_path):
    out = tmp_path / "out"
    build(source, out)
    former = (out / "manifest.json").read_bytes()
    replace_one(source)
    made = build(source, out, update=True)
    (out / "manifest.json").write_bytes(former)
    assert run_module("data_shards", "verify", str(out), "--workers", "1").returncode == 2
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert build(source, out) == Manifest.load(out) == made
    assert written_since(out, before) == set()


def test_two_builds_of_a_source_with_bad_files_give_the_same_bytes(source, tmp_path):
    for name, data in {"a/cut.png": b"\x89PNG\r\n\x1a\n123", "a/empty.jpg": b"", "b/text.png": b"no image"}.items():
        (source / name).write_bytes(data)
    for out, processes in (("one", 1), ("two", 2)):
        build(source, tmp_path / out, skip_bad=3, processes=processes)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(Manifest.load(tmp_path / "one").skipped) == 3


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg", "original"])
def test_the_statistics_are_those_of_the_streamed_pixels(source, tmp_path, encoding):
    out = tmp_path / "out"
    manifest = build(source, out, encoding=encoding)
    batches = ShardStream(out, split="train", global_batch=50, shuffle=False)
    pixels = np.concatenate([batch.image.numpy() for batch in batches]).astype(np.int64)
    sums = np.sum([shard.pixel_sum for shard in manifest.shards_of("train")], axis=0)
    squares = np.sum([shard.pixel_square_sum for shard in manifest.shards_of("train")], axis=0)
    assert np.array_equal(sums, pixels.sum((0, 2, 3)))
    assert np.array_equal(squares, (pixels**2).sum((0, 2, 3)))
    assert run_module("data_shards", "verify", str(out), "--workers", "1").returncode == 0


def test_where_no_shard_is_finished_another_size_is_accepted(source, tmp_path):
    out = tmp_path / "out"
    build(source, out)
    shutil.rmtree(out / ".build")  # as if the first shard had been interrupted
    (out / "manifest.json").unlink()
    assert build(source, out, size=16).image_shape == (3, 16, 16)
    with pytest.raises(InputError, match=r"built with another height \(16, not 8\) and width \(16, not 8\)"):
        build(source, out)


def test_files_that_no_build_has_written_are_left_alone(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train-000000.tar").write_text("mine")
    with pytest.raises(InputError, match=r"train-000000\.tar is there already, and is of no build"):
        build(source, out)
    (out / "train-000000.tar").rename(out / "notes.tar")
    (out / ".notes.123.partial").write_text("mine")
    (out / ".train-000000.tar.123.partial").write_text("of a killed build")
    build(source, out)
    assert (out / "notes.tar").read_text() == (out / ".notes.123.partial").read_text() == "mine"
    assert not (out / ".train-000000.tar.123.partial").exists()


def test_shards_are_not_built_into_their_own_source(source):
    for out in (source, source / "shards"):
        with pytest.raises(InputError, match="lies in the source"):
            build(source, out)


def test_a_folder_that_holds_the_source_takes_the_shards(source, tmp_path):
    assert build(source, tmp_path).num_samples("train") > 0


def test_one_image_and_more_processes_than_shards(tmp_path):
    write_image(tmp_path / "source" / "only.png", 0)
    manifest = build(tmp_path / "source", tmp_path / "out", processes=4)
    assert {split: manifest.num_samples(split) for split in manifest.splits} == {"train": 1}


def test_celeba_with_changed_files_partition_and_attributes_is_updated(tmp_path):
    source, out = write_celeba(tmp_path / "source"), tmp_path / "out"
    images = source / "img_align_celeba"

    def make(where, **more):
        return build_shards("celeba", where, source=source, size=8, shard_images=50, **more)

    make(out)
    shutil.copy(images / "000002.jpg", images / "000001.jpg")
    partition = (source / "list_eval_partition.txt").read_text().splitlines()
    (source / "list_eval_partition.txt").write_text("\n".join([*partition[:-1], "000300.jpg 0"]) + "\n")
    attributes = (source / "list_attr_celeba.txt").read_text()
    line = next(line for line in attributes.splitlines() if line.startswith("000100.jpg"))
    flipped = line.replace("-1", "+").replace(" 1", " -1").replace("+", "1")
    (source / "list_attr_celeba.txt").write_text(attributes.replace(line, flipped))
    with pytest.raises(InputError, match=r"\(1 added, 1 removed, 2 replaced of 300 images\)"):
        make(out)
    make(out, update=True)
    make(tmp_path / "clean")
    assert digests(out) == digests(tmp_path / "clean")


@pytest.mark.parametrize("content", [None, b"", b'{"index_sha256": 1}'])
def test_a_lost_record_is_no_change_of_the_source_and_an_update_mends_it(source, tmp_path, content):
    clean = build(source, tmp_path / "out")
    record = next((tmp_path / "out/.build").glob("train-*.json"))
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content)
    with pytest.raises(InputError, match=rf"{record.name}: missing or damaged, with 0 more"):
        build(source, tmp_path / "out")
    assert build(source, tmp_path / "out", update=True) == clean
    assert build(source, tmp_path / "out") == clean


def test_an_update_of_copied_shards_without_their_records_leaves_no_shard_of_before(source, tmp_path):
    build(source, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / ".build")  # which `cp -r out/*` leaves behind
    for path in sorted(source.rglob("*.png"))[20:]:
        path.unlink()
    build(source, tmp_path / "out", update=True)
    build(source, tmp_path / "clean")
    assert digests(tmp_path / "out") == digests(tmp_path / "clean")


def earlier_decoder(shards: Path) -> None:
    """Makes shards those of a version that did not count its decoders."""
    for name in ("manifest.json", "recipe.json"):
        content = json.loads((shards / name).read_text())
        (content.get("build") or content).pop("decodings")
        (shards / name).write_text(json.dumps(content))


def test_shards_of_an_earlier_decoder_are_told(source, tmp_path):
    out = tmp_path / "shards"
    words = ("data_shards", "build", "folder", str(source), "--out", str(out), "--size", "8", "--shard-images", "10")
    assert "decoder" not in run_module(*words).stdout
    earlier_decoder(out)
    assert f"{out}: its pixels are by version 1 of the decoder" in run_module(*words).stdout
    add_one(source)
    assert f"version 1 and {VERSION} of the decoder" in run_module(*words, "--update").stdout
    assert Manifest.load(out).build["decodings"] == [1, VERSION]
    for path in source.rglob("*.png"):
        replaced = np.asarray(Image.open(path).convert("RGB")) // 2
        Image.fromarray(replaced).save(path)
    assert "decoder" not in run_module(*words, "--update").stdout
    assert Manifest.load(out).build["decodings"] == [VERSION]
