"""Builds: parallel, resumable, reproducible, and clear about what is wrong."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from support.celeba_tree import write_celeba
from support.folder_builds import digests

from data_shards import __main__ as command_line
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest


def build(*words):
    """Runs the command in this process."""
    argv, sys.argv = sys.argv, ["data_shards", "build", *map(str, words)]
    try:
        command_line.main()
    finally:
        sys.argv = argv


def celeba_words(source, out, *more):
    return ("celeba", "--source", source, "--out", out, "--shard-images", 50, "--workers", 1, *more)


@pytest.fixture(scope="module")
def shards(celeba, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "shards"
    build(*celeba_words(celeba, out))
    return out


def test_the_official_splits_are_kept(shards):
    manifest = Manifest.load(shards)
    assert {split: manifest.num_samples(split) for split in manifest.splits} == {"train": 240, "valid": 30, "test": 30}
    assert manifest.image_shape == (3, 64, 64)
    assert [shard.count for shard in manifest.shards] == [50, 50, 50, 50, 40, 30, 30]


def test_three_processes_write_the_bytes_that_one_writes(celeba, shards, tmp_path):
    build(*celeba_words(celeba, tmp_path / "out", "--workers", 3))
    assert digests(tmp_path / "out") == digests(shards)


def test_a_zip_gives_the_bytes_of_the_folder(celeba, shards, tmp_path):
    source = tmp_path / "zipped"
    source.mkdir()
    with zipfile.ZipFile(source / "img_align_celeba.zip", "w") as archive:
        for path in sorted((celeba / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        shutil.copy(celeba / name, source)
    build(*celeba_words(source, tmp_path / "out"))
    assert digests(tmp_path / "out") == digests(shards)


def test_parts_merge_to_the_bytes_of_one_build(celeba, shards, tmp_path):
    out = tmp_path / "out"
    for part in (2, 0, 1):
        assert not (out / "manifest.json").exists()
        build(*celeba_words(celeba, out, "--part", f"{part}/3"))
    build(*celeba_words(celeba, out, "--merge"))
    assert digests(out) == digests(shards)


def test_a_merge_names_a_shard_that_no_part_has_done(celeba, tmp_path):
    build(*celeba_words(celeba, tmp_path, "--part", "0/2"))
    with pytest.raises(InputError, match=r"train-000001\.tar: not done, with 2 more of 7"):
        build(*celeba_words(celeba, tmp_path, "--merge"))
    assert not (tmp_path / "manifest.json").exists()


def test_builds_killed_at_random_moments_go_on_to_the_same_bytes(celeba, shards, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "data_shards", "build", *map(str, celeba_words(celeba, out, "--workers", 2))]
    moments = random.Random(3)
    unfinished = 0
    for _ in range(10):
        process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(lambda process=process: out.is_dir() or process.poll() is not None)
        time.sleep(moments.uniform(0, 1.2))
        process.send_signal(signal.SIGKILL)  # the parent alone: its workers must end by themselves
        process.wait()
        unfinished += not (out / "manifest.json").exists()
        _wait_for(lambda group=process.pid: not _group_alive(group))
    assert unfinished
    build(*celeba_words(celeba, out))
    assert digests(out) == digests(shards)


def _wait_for(condition):
    for _ in range(20_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited 200 s in vain")


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_damaged_shard_is_written_again(celeba, shards, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    (out / "manifest.json").unlink()
    with (out / "train-000002.tar").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    (out / "valid-000000.json").write_text('{"cut sho')
    build(*celeba_words(celeba, out))
    assert digests(out) == digests(shards)


def test_a_finished_build_is_left_alone_even_without_its_source(celeba, tmp_path):
    source, out = shutil.copytree(celeba, tmp_path / "source"), tmp_path / "out"
    build(*celeba_words(source, out))
    source.rename(tmp_path / "moved")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    build(*celeba_words(source, out))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_options_do_not_mix_into_a_folder_of_shards(celeba, shards):
    before = digests(shards)
    with pytest.raises(InputError, match=r"holds shards built with another crop \(140, not 128\)"):
        build(*celeba_words(celeba, shards, "--crop", 128))
    assert digests(shards) == before


@pytest.fixture
def damaged_celeba(tmp_path):
    """Four unusable images: missing, empty, cut short, no image at all."""
    source = write_celeba(tmp_path / "source")
    images = source / "img_align_celeba"
    (images / "000003.jpg").unlink()
    (images / "000060.jpg").write_bytes(b"")
    whole = (images / "000061.jpg").read_bytes()
    (images / "000061.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "000299.jpg").write_text("no image")
    return source


def test_unusable_images_are_named_and_counted_and_refuse_the_build(damaged_celeba, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"4 unusable images where 3 are allowed \(000003: missing; 000060: empty"):
        build(*celeba_words(damaged_celeba, out, "--skip-bad", 3))
    assert not (out / "manifest.json").exists()


def test_as_many_unusable_images_as_allowed_are_left_out_and_listed(damaged_celeba, tmp_path):
    out = tmp_path / "out"
    build(*celeba_words(damaged_celeba, out, "--skip-bad", 4))
    manifest = Manifest.load(out)
    assert [entry.key for entry in manifest.skipped] == ["000003", "000060", "000061", "000299"]
    assert [entry.split for entry in manifest.skipped] == ["train"] * 3 + ["test"]
    assert manifest.num_samples("train") == 237
    assert manifest.num_samples("test") == 29


def test_the_command_that_lists_all_reasons_is_one_that_runs(damaged_celeba, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("data_shards.build.command._REASONS_SHOWN", 1)
    build(*celeba_words(damaged_celeba, tmp_path / "my out", "--skip-bad", 4))
    command = capsys.readouterr().out.split("`")[1]
    assert shlex.split(command) == ["python", "-m", "data_shards", "info", str(tmp_path / "my out")]


def test_attributes_travel_with_each_image(celeba, shards):
    import tarfile

    with tarfile.open(shards / "test-000000.tar") as tar:
        kept = json.load(tar.extractfile("000271.json"))
    lines = (celeba / "list_attr_celeba.txt").read_text().splitlines()
    names, row = lines[1].split(), next(line.split()[1:] for line in lines if line.startswith("000271"))
    assert kept == {name: value == "1" for name, value in zip(names, row, strict=True)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "3/3"], "part: 3 of 3"),
        (["--part", "one"], "--part: 'one' is not of the form I/N"),
        (["--crop", "wide"], "--crop: 'wide'"),
        (["--valid", "5"], "valid: celeba has its own splits"),
        (["--workers", "0"], "processes: 0"),
        (["--size", "0"], "size: 0 is not a whole number"),
        (["--crop", "300"], "unusable images where 0 are allowed.*178 x 218 pixels are too few for a crop of 300"),
    ],
)
def test_a_wrong_option_is_named(celeba, tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        build(*celeba_words(celeba, tmp_path / "out", *words))


def test_the_command_ends_with_exit_code_2_and_one_line(tmp_path):
    words = [
        sys.executable,
        "-m",
        "data_shards",
        "build",
        "celeba",
        "--source",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "neither img_align_celeba/ nor img_align_celeba.zip" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000301.jpg 3", "line 301: '000301.jpg 3' is not a file name and 0, 1 or 2"),
        ("000001.jpg 0", "line 301: '000001.jpg' is there twice"),
        ("../000301.jpg 0", "not a plain file name"),
    ],
)
def test_a_wrong_line_of_the_partition_file_is_named_by_its_number(tmp_path, line, message):
    source = write_celeba(tmp_path / "source")
    with (source / "list_eval_partition.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=message):
        build(*celeba_words(source, tmp_path / "out"))
