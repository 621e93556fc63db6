"""verify, info and simulate, as a person runs them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.shard_cases import ArraySource, build_arrays

from data_shards import __main__ as command_line
from data_shards.inspect.info import pixel_statistics
from data_shards.inspect.simulate import Cluster, MadeUpShards, RealShards, walk
from data_shards.io.errors import InputError, MachineFault
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream


def run(*words):
    argv, sys.argv = sys.argv, ["data_shards", *map(str, words)]
    try:
        command_line.main()
    finally:
        sys.argv = argv


@pytest.fixture
def shards(uneven_shards, tmp_path):
    return shutil.copytree(uneven_shards, tmp_path / "shards")


def test_verify_finds_no_fault_in_whole_shards(shards, capsys):
    run("verify", shards, "--workers", 1)
    assert "with 218 images agree with the manifest" in capsys.readouterr().out


def test_verify_by_processes_finds_the_same(shards, capsys):
    (shards / "train-000004.tar").unlink()
    with pytest.raises(InputError, match=r"1 faults, the first: .*train-000004\.tar: cannot be opened"):
        run("verify", shards, "--workers", 2)


def verify_at_work(shards: Path) -> tuple[subprocess.Popen, list[int]]:
    """`verify` in a session of its own, once it has two workers and the process by which Python follows them."""
    words = [sys.executable, "-m", "data_shards", "verify", str(shards), "--workers", "2"]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    children: list[int] = []
    while len(children) < 3 and process.poll() is None:
        children = [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
        time.sleep(0.01)
    return process, children


def test_a_stop_of_verify_is_one_line_from_all_its_processes(shards):
    process, _ = verify_at_work(shards)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    assert process.communicate()[1] == "interrupted; the same command goes on from here\n"
    assert process.returncode == 130


def test_a_worker_of_verify_that_is_killed_is_one_line(shards):
    process, children = verify_at_work(shards)
    os.kill(children[-1], signal.SIGKILL)
    errors = process.communicate()[1]
    assert errors == "error: --workers: a worker process was killed, perhaps for memory; use fewer\n"
    assert process.returncode == 2


def test_verify_names_each_damaged_member(shards, capsys):
    index = json.loads((shards / "train-000002.json").read_text())["members"]
    with (shards / "train-000002.tar").open("r+b") as file:
        for row in (3, 11):
            file.seek(index["offset"][row] + 150)
            file.write(b"damage")
    with pytest.raises(InputError, match="3 faults"):
        run("verify", shards, "--workers", 1)
    output = capsys.readouterr().out
    assert "does not have the sha256 of the manifest" in output
    assert "train_00043.npy does not have its checksum" in output
    assert "train_00051.npy does not have its checksum" in output


def test_verify_reports_a_truncated_tar(shards, capsys):
    tar = shards / "train-000002.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(InputError):
        run("verify", shards, "--workers", 1)
    assert "train-000002.tar: train_00059.npy is missing" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["manifest.json", "train-000002.tar", "train-000002.json"])
def test_a_pipe_among_shards_is_named_and_not_waited_for(shards, name, capsys):
    (shards / name).unlink()
    os.mkfifo(shards / name)
    with pytest.raises(InputError, match=rf"{name}: is a pipe or a device; use a file"):
        run("verify", shards, "--workers", 1)
    with pytest.raises(InputError, match=rf"{name}: is a pipe or a device; use a file"):
        list(ShardStream(shards, split="train", global_batch=8, max_substitutes=0))


def test_verify_reports_an_index_that_is_not_the_manifests(shards):
    (shards / "train-000000.json").write_text("{}")
    with pytest.raises(InputError, match="its index does not have the sha256"):
        run("verify", shards, "--workers", 1)


def test_pixel_statistics_are_those_that_numpy_computes(uneven_shards, uneven_source):
    images = uneven_source.good("train").astype(np.float64) / 255
    for channel, (mean, variance) in enumerate(pixel_statistics(Manifest.load(uneven_shards), "train")):
        assert mean == pytest.approx(images[..., channel].mean(), rel=1e-12)
        assert variance == pytest.approx(images[..., channel].var(), rel=1e-12)


def test_info_prints_splits_skipped_images_and_shuffle_and_draws_a_contact_sheet(shards, uneven_source, capsys):
    run("info", shards)
    output = capsys.readouterr().out
    assert "train: 211 images in 12 shards" in output
    assert "39 unusable source images were left out" in output
    assert "correlation of neighbours" in output
    sheet = np.asarray(Image.open(shards / "contact-sheet.png"))
    assert sheet.shape == (10 * 5 + 1, 10 * 7 + 1, 3)
    assert np.array_equal(sheet[1:5, 1:7], uneven_source.good("train")[0])
    assert np.array_equal(sheet[46:50, 64:70], uneven_source.good("train")[210])


def test_info_of_shards_that_are_only_read_says_that_it_draws_none(shards, capsys, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("data_shards.inspect.info.atomic.write_bytes", refuse)
    run("info", shards)
    assert "no contact sheet: " in capsys.readouterr().out
    with pytest.raises(MachineFault, match=r"mine\.png: the file system is read-only"):
        run("info", shards, "--contact-sheet", "mine.png")


def test_a_contact_sheet_never_takes_the_place_of_a_link_to_nothing(shards, tmp_path):
    (tmp_path / "sheet.png").symlink_to(tmp_path / "not-mounted.png")
    with pytest.raises(InputError, match=r"contact_sheet: .*sheet\.png is a link to .*not-mounted\.png"):
        run("info", shards, "--contact-sheet", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_symlink()


def test_the_walk_of_real_shards_counts_what_the_stream_reads(tmp_path):
    manifest = build_arrays(tmp_path, ArraySource({"train": 300}), shard_images=10, window=4)
    cluster = Cluster(ranks=6, ranks_per_node=2, global_batch=25, cache_bytes=10**9)
    walked = walk(RealShards(manifest), cluster, positions=300)
    touched = []
    for node in range(3):
        shards = set()
        for rank in (2 * node, 2 * node + 1):
            stream = ShardStream(tmp_path, split="train", global_batch=25, rank=rank, world_size=6)
            shards |= {sample // 10 for batch in stream for sample in batch.index.tolist()}
        touched.append(len(shards))
    shard_bytes = sum(shard.bytes for shard in manifest.shards) // 30
    assert walked.fetched_bytes == (min(touched) * shard_bytes, max(touched) * shard_bytes)
    assert walked.steps == 12


def test_options_for_made_up_shards_do_not_go_with_real_ones(shards):
    with pytest.raises(InputError, match="images: is for made up shards, and real ones are given"):
        run("simulate", shards, "--images", "100")


def test_a_cache_of_one_window_fetches_each_shard_once_an_epoch():
    shards = MadeUpShards(images=10_000, shard_images=100, image_bytes=1000, window=5)
    cluster = Cluster(ranks=1, ranks_per_node=1, global_batch=64, cache_bytes=6 * shards.shard_bytes)
    walked = walk(shards, cluster, positions=10_000)
    assert walked.fetched_bytes == (100 * shards.shard_bytes, 100 * shards.shard_bytes)
    assert walked.rank_bytes == (10_000 * 1000, 10_000 * 1000)


def test_a_cache_smaller_than_a_window_is_refused():
    shards = MadeUpShards(images=1000, shard_images=100, image_bytes=1000, window=5)
    with pytest.raises(InputError, match="cache_bytes"):
        walk(shards, Cluster(ranks=1, ranks_per_node=1, global_batch=64, cache_bytes=1000), positions=10)


def test_a_cache_that_holds_all_shards_of_a_set_smaller_than_a_window_is_enough():
    shards = MadeUpShards(images=300, shard_images=100, image_bytes=1000, window=5)
    cluster = Cluster(ranks=1, ranks_per_node=1, global_batch=64, cache_bytes=3 * shards.shard_bytes)
    assert walk(shards, cluster, positions=300).fetched_bytes == (3 * shards.shard_bytes, 3 * shards.shard_bytes)


def test_the_memory_of_a_walk_hardly_grows_from_ten_thousand_images_to_a_billion():
    import subprocess

    def peak(images):
        words = ["-m", "data_shards", "simulate", "--images", str(images), "--positions", "100000"]
        output = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
        return int(output.rpartition("peak memory of this process: ")[2].split()[0])

    assert peak(10**9) < 2 * peak(10**4)
