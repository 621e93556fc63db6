"""A run that has ended: a folder that can only be read, and changes that would change nothing."""

import contextlib
import shutil
import subprocess

import pytest
from support.running import run_module
from support.training import train, weights, words

from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.config.config import load_config
from trainer.loop import train as run_training
from trainer.run_folder.checkpoint import complete_checkpoints, read_state

SHORT = {"stage1__max_epochs": 0.3, "stage2__max_epochs": 0.2, "optimiser__schedule": "constant"}


@pytest.fixture(scope="module")
def finished(digits_shards, tmp_path_factory):
    """A run in two stages that has ended."""
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "run", **SHORT)


@pytest.fixture(scope="module")
def converged(digits_shards, tmp_path_factory):
    """A run whose only stage has ended for want of gain at its second check."""
    fields = {"stage1__check_images": 30, "stage1__patience": 1, "stage1__eps": 1e9, "stage2__max_epochs": 0}
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "run", **fields), fields


@contextlib.contextmanager
def read_only(folder):
    """Mounts a folder on itself such that it can only be read."""
    mount = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def go_on(shards, run, **fields):
    asked = words(shards, run.parent, run.name, **fields)
    return run_training(read_command_line(asked).config, allow_change=True)


def test_on_a_disk_that_can_only_be_read_it_is_told_to_be_complete(digits_shards, finished, capfd):
    with read_only(finished.parent):
        assert go_on(digits_shards, finished, **SHORT) == finished
        line = capfd.readouterr().out
        assert line.startswith(f"{finished} is complete: ")
        assert line.endswith(f"next: python -m eval report --run {finished}\n")
        with pytest.raises(InputError, match="seed: 0 -> 1"):
            go_on(digits_shards, finished, **SHORT, seed=1)
        with pytest.raises(OSError, match=r"run: cannot be written, as the file system is read-only: choose a folder"):
            go_on(digits_shards, finished, **SHORT | {"stage2__max_epochs": 1})


@pytest.mark.slow
def test_so_it_is_on_two_processes_and_with_dry_run(digits_shards, finished):
    with read_only(finished.parent):
        for options in ([], ["--dry-run"]):
            processes = 0 if options else 2
            done = run_module(
                "trainer", *words(digits_shards, finished.parent, "run", **SHORT), *options, processes=processes
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{finished} is complete: ")
            assert done.stdout.count("\n") == 1


def test_a_change_that_nothing_would_use_is_refused_and_leaves_the_folder_as_it_is(digits_shards, finished):
    before = (finished / "config.yaml").read_text()
    for fields in ({"optimiser__learning_rate": 0.5}, {"stage1__eps": 0.5}, {"stage2__check_images": 77}):
        with pytest.raises(
            InputError, match=r"would change nothing: .* is complete .* raise stage2\.max_epochs above 0"
        ):
            go_on(digits_shards, finished, **SHORT | fields)
    with pytest.raises(
        InputError, match=r"config\.yaml: stage1\.eps: 0\.0 -> 0\.5 would change nothing: .* in stage 2"
    ):
        go_on(digits_shards, finished, **SHORT | {"stage1__eps": 0.5, "stage2__max_epochs": 0.4})
    assert (finished / "config.yaml").read_text() == before
    assert not (finished / "configurations").exists()


def test_a_run_that_has_converged_goes_on_where_its_patience_is_raised(digits_shards, converged, tmp_path):
    run, fields = converged
    own = shutil.copytree(run, tmp_path / "run")
    assert read_state(complete_checkpoints(own)[-1]).stages.ended == "converged"
    with pytest.raises(
        InputError, match=r"stage1\.max_epochs: 1\.0 -> 2\.0 would change .* raise stage1\.patience above 1"
    ):
        go_on(digits_shards, own, **fields, stage1__max_epochs=2)
    go_on(digits_shards, own, **fields | {"stage1__patience": 3})
    longer = train(digits_shards, tmp_path / "other", "run", **fields | {"stage1__patience": 3})
    assert load_config(own).stage1.patience == 3
    assert complete_checkpoints(own)[-1].name == complete_checkpoints(longer)[-1].name
    assert weights(own).keys() == weights(longer).keys()
