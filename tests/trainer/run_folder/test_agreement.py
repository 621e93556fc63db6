"""Processes that would train different runs do not start: each says what differs, on which rank and host."""

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.jobs import Ended, run_job
from support.running import run_module, write_digits, write_idx
from support.training import words


def train_apart(*arguments: list[str]) -> list[Ended]:
    """Each process with its own command line."""
    return run_job([["-m", "trainer", *own] for own in arguments])


def assert_both_say(ends: list[Ended], pattern: str) -> None:
    for ended in ends:
        assert ended.code == 2, ended.lines
        assert [line for line in ended.lines if re.search(pattern, line)], ended.lines
        assert all(line.startswith("error: ") for line in ended.lines), ended.lines


def test_other_fields_are_named_one_a_line(digits_shards, tmp_path):
    ends = train_apart(
        words(digits_shards, tmp_path, "run"),
        words(digits_shards, tmp_path, "run", data__global_batch=60, seed=3),
    )
    assert_both_say(ends, r"seed differs between processes: 0 on rank 0 on \S+; 3 on rank 1 on \S+")
    assert_both_say(ends, r"data\.global_batch differs between processes: 30 on rank 0 on \S+; 60 on rank 1")
    assert [len(ended.lines) for ended in ends] == [2, 2]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_shard_set_of_the_same_size_is_noticed(digits_shards, tmp_path):
    # The same images in another order.
    images = tmp_path / "source" / "train-images-idx3-ubyte.gz"
    write_digits(images.parent)
    values = np.frombuffer(gzip.decompress(images.read_bytes())[16:], dtype=np.uint8).reshape(-1, 28, 28)
    write_idx(images, values[::-1])
    build = ["build", "mnist", "--source", str(images.parent), "--out", str(tmp_path / "stale"), "--valid", "200"]
    done = run_module("data_shards", *build)
    assert done.returncode == 0, done.stderr
    ends = train_apart(words(digits_shards, tmp_path, "run"), words(tmp_path / "stale", tmp_path, "run"))
    assert_both_say(ends, r"shard set differs between processes")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_copy_of_the_shards_under_another_path_is_the_same_set(digits_shards, tmp_path):
    shutil.copytree(digits_shards, tmp_path / "copy")
    short = {"stage1__max_epochs": 0.1, "stage2__max_epochs": 0}
    ends = train_apart(
        words(digits_shards, tmp_path, "run", **short), words(tmp_path / "copy", tmp_path, "run", **short)
    )
    assert [ended.code for ended in ends] == [0, 0], ends


def test_a_run_folder_that_is_not_shared_is_noticed_and_not_begun(digits_shards, tmp_path):
    ends = train_apart(words(digits_shards, tmp_path / "here", "run"), words(digits_shards, tmp_path / "there", "run"))
    assert_both_say(ends, "there/run is not the folder that rank 0 writes to")
    assert not (tmp_path / "here" / "run").exists()
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_shards_that_are_missing_on_one_process_are_told_on_both(digits_shards, tmp_path, rank):
    own = [words(digits_shards, tmp_path, "run"), words(digits_shards, tmp_path, "run")]
    own[rank] = words(Path("/nowhere"), tmp_path, "run")
    ends = train_apart(*own)
    assert_both_say(ends, "/nowhere")
    assert ends[1 - rank].lines[0].startswith(f"error: rank {rank} on ")
    assert [len(ended.lines) for ended in ends] == [1, 1]
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made_ends_both(digits_shards, tmp_path):
    (tmp_path / "file").write_text("")
    own = words(digits_shards, tmp_path / "file", "run")
    ends = train_apart(own, own)
    assert_both_say(ends, "runs: .* cannot be made, as .*/file.* is a file")


@pytest.mark.slow
def test_the_configuration_of_one_process_may_be_invalid(digits_shards, tmp_path):
    ends = train_apart(
        words(digits_shards, tmp_path, "run"), words(digits_shards, tmp_path, "run", data__global_batch=-1)
    )
    assert_both_say(ends, r"data\.global_batch")
    assert ends[0].lines[0].startswith("error: rank 1 on ")
