"""What stands in a run folder where the trainer writes is told in one line before anything is trained."""

import errno
import os
import shutil

import pytest
from support.training import train, words

from data_shards.io.errors import MachineFault, command
from trainer.__main__ import read_command_line
from trainer.loop import train as run_training
from trainer.peers.failure import failure_of
from trainer.run_folder.restore import load_model


def a_file_for_checkpoints(run):
    run.mkdir()
    (run / "checkpoints").write_text("mine")


def a_folder_for_requeue(run):
    (run / "requeue").mkdir(parents=True)


def a_file_for_requeue(run):
    run.mkdir()
    (run / "requeue").write_text("yes, on Monday\n")


def a_link_to_nothing(run):
    run.symlink_to(run.with_name("nowhere") / "at" / "all")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_file_for_checkpoints, "/run/checkpoints: something else is there already: choose another path"),
        (a_folder_for_requeue, "/run/requeue: is a folder, but a file of this name is written after a stop; rename it"),
        (
            a_file_for_requeue,
            "/run/requeue: is not the trainer's, but a file of this name is written after a stop; rename it",
        ),
        (a_link_to_nothing, "/run cannot be made, as {run} is a link to nothing"),
    ],
)
def test_what_is_in_the_way_is_told_before_the_first_update(make, message, digits_shards, tmp_path, capfd):
    run = tmp_path / "run"
    make(run)
    config = read_command_line(words(digits_shards, tmp_path, "run")).config
    assert command(lambda: run_training(config)) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.endswith(message.format(run=run))
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "place",
    [
        "config.yaml",
        "requeue",
        ".lease.json",
        "checkpoints/000000000030/COMPLETE",
        "checkpoints/000000000030/state.json",
        "checkpoints/000000000060",
        "eval/fid-0.json",
    ],
)
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(place, digits_shards, trained, capfd):
    path = trained / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    config = read_command_line(words(digits_shards, trained.parent, "run")).config
    assert command(lambda: run_training(config)) == 2
    if place not in ("requeue", ".lease.json"):
        assert command(lambda: load_model(trained)) == 2
    for line in capfd.readouterr().err.strip().splitlines():
        assert str(path) in line
    assert path.is_fifo()


@pytest.fixture
def trained(digits_shards, tmp_path):
    return train(digits_shards, tmp_path, "run", checkpoint__walltime_minutes=1e-4)


def test_a_lease_that_is_a_link_to_nothing_is_named_and_not_waited_for(digits_shards, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lease.json").symlink_to(tmp_path / "nowhere")
    config = read_command_line(words(digits_shards, tmp_path, "run")).config
    assert command(lambda: run_training(config)) == 2
    assert "/run/.lease.json: is no file, but a lease file is written here; rename it" in capfd.readouterr().err


def test_a_folder_in_place_of_a_trained_runs_configuration_is_told(digits_shards, tmp_path, capfd):
    run = train(digits_shards, tmp_path, "run", checkpoint__walltime_minutes=1e-4)
    shutil.move(run / "config.yaml", tmp_path / "kept.yaml")
    (run / "config.yaml").mkdir()
    capfd.readouterr()
    config = read_command_line(words(digits_shards, tmp_path, "run")).config
    assert command(lambda: run_training(config)) == 2
    assert capfd.readouterr().err.strip().endswith("choose another name")


def test_a_fault_of_the_machine_is_told_to_the_other_processes_in_its_own_words():
    told = failure_of(OSError(errno.EROFS, "Read-only file system", "/data/run"), 0)
    assert told.reason == "/data/run: the file system is read-only: choose a folder that can be written"
    assert told.code == 1
    assert failure_of(MachineFault("/data/run: the disk is full"), 0).reason == "/data/run: the disk is full"
