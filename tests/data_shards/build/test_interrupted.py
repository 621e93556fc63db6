"""Ctrl-C, and large sources."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.folder_builds import build, digests, write_image

from data_shards.build.layout import linear_hash, shard_plans, task_of
from data_shards.sources.folder import FolderSource


@pytest.mark.parametrize("signalled", ["Ctrl-C", "kill"])
def test_a_stop_ends_all_processes_with_one_line_and_the_same_command_goes_on(tmp_path, signalled):
    source, out = tmp_path / "source", tmp_path / "out"
    for number in range(100):
        write_image(source / f"{number}.png", number)
    words = [sys.executable, "-m", "data_shards", "build", "folder", "--source", str(source), "--out", str(out)]
    words += ["--size", "300", "--encoding", "png", "--shard-images", "5", "--workers", "2"]
    process = None
    while process is None or process.poll() is not None:  # a build that has ended before it was looked at
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not (list(out.glob("*.json")) and list((out / ".build").glob("*.json"))):
            time.sleep(0.02)
    if signalled == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    else:
        process.terminate()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "interrupted; the same command goes on from here\n")
    while _runs(process.pid):  # Python's own helper process ends a moment later
        time.sleep(0.02)
    names = {path.name for path in out.rglob("*")}
    assert not [name for name in names if name.endswith(".partial") or "lease" in name]
    assert "manifest.json" not in names
    options = {"size": 300, "encoding": "png", "shard_images": 5, "processes": 2}
    build(source, out, **options)
    build(source, tmp_path / "clean", **options)
    assert digests(out) == digests(tmp_path / "clean")


def _runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_linear_hashing_divides_one_shard_for_each_new_one():
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    for shards in (1, 2, 3, 7, 8, 33):
        before, after = linear_hash(hashes, shards), linear_hash(hashes, shards + 1)
        assert set(before) == set(range(shards))
        moved = before != after
        assert len(set(before[moved])) == 1
        assert set(after[moved]) == {shards}
        sizes = np.bincount(before) / (len(hashes) / shards)
        assert 0.45 < sizes.min() <= sizes.max() < 2.1


def test_a_worker_is_sent_the_names_of_its_own_shard_alone(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number:04d}.png").touch()
    source = FolderSource(tmp_path)
    plan = shard_plans(source, 20)[0]
    task = task_of(source, plan, source.stamps("train"))
    assert len(pickle.dumps(task)) < 200 * len(plan.rows) + 1000


@pytest.mark.slow
def test_two_hundred_thousand_files_are_listed_in_seconds(tmp_path):
    for folder in range(20):
        (tmp_path / f"class-{folder}").mkdir()
        for number in range(10_000):
            (tmp_path / f"class-{folder}" / f"{number:05d}.png").touch()
    began = time.monotonic()
    source = FolderSource(tmp_path)
    stamps = {split: source.stamps(split) for split in source.keys}
    plans = shard_plans(source, 1000)
    seconds = time.monotonic() - began
    assert sum(map(len, stamps.values())) == sum(len(plan.rows) for plan in plans) == 200_000
    print(f"{seconds:.1f} s")
    assert seconds < 20
