"""An evaluation in parts equals one in a single job, whichever processes make the parts; wrong parts are refused."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from support.distance_extractor import DIM, N, fid, question, words
from support.running import ROOT
from torch.multiprocessing import spawn

from data_shards.io.errors import InputError
from eval.commands.options import chosen_part
from eval.distance.measures.frechet import frechet_distance
from eval.distance.parts import merge
from eval.distance.statistics import FeatureStatistics
from trainer.process_group import process_group, single

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def compared(digits_run):
    return question(digits_run)


@pytest.fixture(scope="module")
def whole(compared):
    return distance(compared.statistics(single()))


def distance(statistics):
    """From a standard normal."""
    mean, covariance = torch.zeros(DIM, dtype=torch.float64), torch.eye(DIM, dtype=torch.float64)
    return frechet_distance(statistics.mean(), statistics.covariance(), mean, covariance)


def write_parts(compared, folder, parts, ranks):
    """The paths of all parts, each made by the processes of `ranks` together."""
    paths = [folder / f"part-{part}-of-{parts}" for part in range(parts)]
    for part, path in enumerate(paths):
        statistics = compared.statistics(ranks, part=part, parts=parts)
        if ranks.is_main:
            statistics.save(path)
    return paths


@pytest.fixture
def paths(compared, tmp_path):
    return write_parts(compared, tmp_path, 3, single())


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_parts_made_one_after_the_other_merge_to_nine_digits(compared, tmp_path, whole, parts):
    merged = merge(write_parts(compared, tmp_path, parts, single()), compared.protocol)
    assert distance(merged) == pytest.approx(whole, rel=1e-9)


def one_of_two(rank, port, run, folder):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    compared = question(run)
    with process_group() as ranks:
        for parts in (1, 3, 8):
            write_parts(compared, folder, parts, ranks)


def test_one_three_and_eight_parts_on_two_processes_agree_to_nine_digits(compared, digits_run, tmp_path, whole):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    spawn(one_of_two, (port, digits_run, tmp_path), nprocs=2)
    for parts in (1, 3, 8):
        merged = merge([tmp_path / f"part-{part}-of-{parts}" for part in range(parts)], compared.protocol)
        assert distance(merged) == pytest.approx(whole, rel=1e-9)


def test_every_image_is_in_exactly_one_part(paths):
    ids = torch.cat([FeatureStatistics.load(path).ids for path in paths])
    assert torch.equal(ids.sort().values, torch.arange(N))


def test_a_missing_part_is_named(compared, paths):
    paths[1].unlink()
    with pytest.raises(InputError, match="part-1-of-3 missing"):
        merge(paths, compared.protocol)


def test_a_doubled_part_is_named_with_its_double(compared, paths):
    shutil.copy(paths[0], paths[1])
    with pytest.raises(InputError, match="part-1-of-3: has image 0, and so has part-0-of-3"):
        merge(paths, compared.protocol)


def test_a_truncated_part_is_named(compared, paths):
    paths[2].write_bytes(paths[2].read_bytes()[:-10])
    with pytest.raises(InputError, match="part-2-of-3: damaged"):
        merge(paths, compared.protocol)


def test_a_part_of_another_protocol_is_named_with_the_field(compared, paths, digits_run):
    question(digits_run, "--seed", "1").statistics(single(), part=1, parts=3).save(paths[1])
    with pytest.raises(InputError, match=r"part-1-of-3: of another protocol \(seed is 1 instead of 0\)"):
        merge(paths, compared.protocol)


def test_parts_that_leave_images_out_are_refused(compared, paths):
    with pytest.raises(InputError, match="images are in no part"):
        merge(paths[:2], compared.protocol)


@pytest.fixture
def run(tmp_path, digits_run):
    """A copy of the run that a command may write into."""
    return shutil.copytree(digits_run, tmp_path / "digits")


def answer(run):
    (path,) = (run / "eval").glob("fid-*.json")
    return json.loads(path.read_text())["values"]["frechet_distance"]["value"]


def test_a_finished_part_is_not_made_twice_but_a_damaged_one_is(run, capsys):
    fid(run, "--part", "1/3")
    (path,) = (run / "eval" / "parts").glob("*/part-*.safetensors")
    content, before = path.read_bytes(), path.stat().st_mtime_ns
    fid(run, "--part", "1/3")
    assert path.stat().st_mtime_ns == before
    assert "finished before" in capsys.readouterr().out
    path.write_bytes(content[:1000])
    fid(run, "--part", "1/3")
    assert path.read_bytes() == content


def test_a_killed_part_leaves_nothing_and_is_made_alone(run, tmp_path):
    note, slow = tmp_path / "note", ("--extractor", "support.distance_extractor:make_slow")
    environment = {**os.environ, "NOTE": str(note), "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "eval", "fid", *words(run, *slow, "--part", "1/3")]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while not note.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    for part in ("0/3", "2/3"):
        fid(run, *slow, "--part", part)
    with pytest.raises(InputError, match=r"part-00001-of-00003\.safetensors missing"):
        fid(run, *slow, "--merge", "3")
    fid(run, *slow, "--part", "1/3")
    fid(run, *slow, "--merge", "3")
    merged = answer(run)
    shutil.rmtree(run / "eval")
    fid(run, *slow)
    assert merged == pytest.approx(answer(run), rel=1e-9)


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "0/0"])
def test_a_text_that_is_not_a_part_is_refused(text):
    with pytest.raises(InputError, match=f"part: '{text}'"):
        chosen_part(text)
