"""What a notebook imports from data_shards."""

import os
import subprocess
import sys

import pytest
from support.running import ROOT, run_module

import data_shards
from data_shards import InputError, Location, MachineFault, Manifest, ShardStream, build_shards


def test_the_public_names_are_there_and_no_other():
    assert {name: getattr(data_shards, name) for name in data_shards.__all__} == {
        "InputError": InputError,
        "Location": Location,
        "MachineFault": MachineFault,
        "Manifest": Manifest,
        "ShardStream": ShardStream,
        "build_shards": build_shards,
    }
    with pytest.raises(AttributeError, match="no attribute 'build_everything'"):
        data_shards.build_everything  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, data_shards; data_shards.Manifest; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_build_shards_writes_the_bytes_of_the_command_and_returns_the_manifest(celeba, tmp_path):
    manifest = build_shards("celeba", tmp_path / "api", source=celeba, size=32, shard_images=100, encoding="jpeg")
    words = ["--size", "32", "--shard-images", "100", "--encoding", "jpeg", "--workers", "2"]
    done = run_module("data_shards", "build", "celeba", "--source", str(celeba), "--out", str(tmp_path / "cli"), *words)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "api").glob("[!.]*")} == {
        path.name: path.read_bytes() for path in (tmp_path / "cli").glob("[!.]*")
    }
    assert manifest == Manifest.load(tmp_path / "api")
    assert manifest.image_shape == (3, 32, 32)


def test_a_script_builds_with_processes_at_its_top_level(celeba, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from data_shards import build_shards\n"
        f"print(build_shards('celeba', {str(tmp_path / 'out')!r}, source={str(celeba)!r}, size=16,"
        " shard_images=100, processes=2).hash)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, env=environment, check=True
    )
    assert done.stdout.splitlines()[-1] == Manifest.load(tmp_path / "out").hash
    assert "Traceback" not in done.stderr


def test_build_shards_returns_a_finished_build_even_without_its_source(celeba, tmp_path):
    manifest = build_shards("celeba", tmp_path, source=celeba, size=16)
    assert build_shards("celeba", tmp_path, size=16) == manifest
    with pytest.raises(InputError, match="no folder nowhere"):
        build_shards("celeba", tmp_path, source="nowhere", size=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "cifar"}, "dataset: 'cifar' is unknown; use one of celeba, mnist, fashion-mnist, folder"),
        ({"source": None}, "source: needed for celeba"),
        ({"source": "nowhere"}, "source: no folder nowhere"),
        ({"valid": 5}, "valid: celeba has its own splits"),
        ({"channels": 3}, "channels: celeba is RGB"),
        ({"dataset": "folder", "channels": 2}, "channels: 2 is not one of 1, 3"),
        ({"encoding": "webp"}, "encoding: 'webp' is not one of raw, png, jpeg, original"),
        ({"dataset": "mnist", "encoding": "original"}, "encoding: mnist holds no encoded images"),
        ({"size": 0}, "size: 0 is not a whole number of at least 1"),
        ({"crop": -1}, "crop: -1 is not a whole number of at least 1"),
        ({"processes": 0}, "processes: 0 is not a whole number of at least 1"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(celeba, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        build_shards(**{"dataset": "celeba", "out": tmp_path / "out", "source": celeba, **arguments})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--valid", "5"], "error: --valid: celeba has its own splits; leave the option out\n"),
        (["--workers", "0"], "error: --workers: 0 is not a whole number of at least 1; use for instance 1\n"),
    ],
)
def test_the_command_names_its_own_option(celeba, tmp_path, words, line):
    done = run_module("data_shards", "build", "celeba", "--source", str(celeba), "--out", str(tmp_path / "o"), *words)
    assert (done.returncode, done.stderr) == (2, line)


def test_the_source_is_given_as_a_word_or_as_an_option_but_not_as_both(celeba, tmp_path):
    words = ["--out", str(tmp_path / "o"), "--dry-run"]
    by_word = run_module("data_shards", "build", "celeba", str(celeba), *words)
    by_option = run_module("data_shards", "build", "--source", str(celeba), "celeba", *words)
    assert by_word.returncode == by_option.returncode == 0
    assert by_word.stdout.splitlines()[:2] == by_option.stdout.splitlines()[:2]
    both = run_module("data_shards", "build", "celeba", str(celeba), "--source", "OTHER", *words)
    assert both.returncode == 2
    assert both.stderr == f"error: --source: OTHER is given beside {celeba}; give one of them\n"


def test_a_dry_run_prints_images_shards_time_and_disk_and_writes_nothing(celeba, tmp_path):
    out = tmp_path / "out"
    words = ["data_shards", "build", "celeba", "--source", str(celeba), "--out", str(out), "--workers", "2"]
    done = run_module(*words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["images", "shards", "time", "disk"]
    assert "train 240, valid 30, test 30" in done.stdout
    assert f"3 in {out}" in done.stdout
    assert not out.exists()
