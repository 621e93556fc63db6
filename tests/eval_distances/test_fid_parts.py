"""An evaluation in parts is the evaluation in one go, whoever makes the parts; and a wrong set of parts is refused."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from distance_extractor import distance, fid, result
from torch.multiprocessing import spawn

from data_shards.errors import InputError
from eval.statistics import FeatureStatistics
from trainer.process_group import process_group


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Reference statistics go into a temporary cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGMA_VAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(tmp_path, digits_run):
    """A copy of the run that a test may write into."""
    return shutil.copytree(digits_run, tmp_path / "digits")


@pytest.fixture
def free_port():
    """A port that nothing listens on, as text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def in_parts(run, parts):
    for part in range(parts):
        fid(run, "--part", f"{part}/{parts}")
    fid(run, "--merge", str(parts))


def part_files(run):
    return sorted((run / "eval" / "parts").glob("*/part-*.safetensors"))


def on_two_processes(rank, port, runs):
    """One of two processes; each makes all of the runs' parts together with the other."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with process_group():
        for parts, run in runs.items():
            in_parts(run, parts) if parts > 1 else fid(run)


@pytest.fixture
def whole(run):
    fid(run)
    return distance(run)


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_made_one_after_the_other_merge_to_nine_digits(run, whole, parts):
    in_parts(run, parts)
    assert distance(run) == pytest.approx(whole, rel=1e-9)


def test_one_three_and_eight_parts_on_two_processes_agree_to_nine_digits(tmp_path, digits_run, whole, free_port):
    runs = {parts: shutil.copytree(digits_run, tmp_path / f"in-{parts}") for parts in (1, 3, 8)}
    spawn(on_two_processes, (free_port, runs), nprocs=2)
    assert [distance(run) for run in runs.values()] == pytest.approx([whole] * 3, rel=1e-9)


def test_every_image_is_in_exactly_one_part(run):
    in_parts(run, 3)
    ids = torch.cat([FeatureStatistics.load(path).ids for path in part_files(run)])
    assert torch.equal(ids.sort().values, torch.arange(700))


def test_a_missing_part_is_named(run):
    in_parts(run, 3)
    result(run)
    part_files(run)[1].unlink()
    with pytest.raises(InputError, match=r"part-00001-of-00003\.safetensors missing"):
        fid(run, "--merge", "3")


def test_a_doubled_part_is_named_with_its_double(run):
    in_parts(run, 3)
    result(run)
    first, second, _ = part_files(run)
    shutil.copy(first, second)
    with pytest.raises(InputError, match=r"part-00001-of-00003.safetensors: has image 0, and so has part-00000"):
        fid(run, "--merge", "3")


def test_a_truncated_part_is_named(run):
    in_parts(run, 3)
    result(run)
    path = part_files(run)[2]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"part-00002-of-00003.safetensors: damaged"):
        fid(run, "--merge", "3")


def test_a_part_of_another_protocol_is_named_with_the_field(run, tmp_path, digits_run):
    other = shutil.copytree(digits_run, tmp_path / "other")
    fid(other, "--part", "1/3", "--seed", "1")
    for part in range(3):
        fid(run, "--part", f"{part}/3")
    shutil.copy(part_files(other)[0], part_files(run)[1])
    with pytest.raises(InputError, match=r"part-00001.*another protocol \(seed is 1 instead of 0\)"):
        fid(run, "--merge", "3")


def test_parts_of_another_division_do_not_stand_in_for_missing_ones(run):
    in_parts(run, 3)
    result(run)
    with pytest.raises(InputError, match="part-00000-of-00008"):
        fid(run, "--merge", "8")


def test_a_finished_part_is_not_made_twice(run, capsys):
    fid(run, "--part", "1/3")
    (path,) = part_files(run)
    before = path.stat().st_mtime_ns
    fid(run, "--part", "1/3")
    assert path.stat().st_mtime_ns == before
    assert "finished before" in capsys.readouterr().out


def test_a_damaged_part_is_made_again_by_its_own_command(run, whole):
    in_parts(run, 3)
    result(run)
    path = part_files(run)[0]
    path.write_bytes(path.read_bytes()[:1000])
    fid(run, "--part", "0/3")
    fid(run, "--merge", "3")
    assert distance(run) == pytest.approx(whole, rel=1e-9)


def test_a_killed_part_leaves_nothing_and_is_made_alone(run, tmp_path):
    note = tmp_path / "note"
    words = ["--run", str(run), "--from", "q_hat", "--mixture", "4", "--n", "700", "--extractor-size", "32"]
    command = [
        sys.executable,
        "-m",
        "eval",
        "fid",
        *words,
        "--extractor",
        "distance_extractor:make_slow",
        "--part",
        "1/3",
    ]
    environment = {**os.environ, "NOTE": str(note), "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while not note.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    slow = {"extractor": "distance_extractor:make_slow"}
    fid(run, "--part", "0/3", **slow)
    fid(run, "--part", "2/3", **slow)
    with pytest.raises(InputError, match=r"part-00001-of-00003\.safetensors missing"):
        fid(run, "--merge", "3", **slow)
    fid(run, "--part", "1/3", **slow)
    fid(run, "--merge", "3", **slow)
    merged = distance(run)
    fid(run, **slow)
    assert merged == pytest.approx(distance(run), rel=1e-9)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "0/0"])
def test_a_part_that_is_none_is_one_clear_error(run, text):
    with pytest.raises(InputError, match="--part"):
        fid(run, f"--part={text}")
