"""What stands in a run folder where the trainer writes is told in one line before anything is trained."""

import errno
import shutil

import pytest
from support.training import train, words

from data_shards.io.errors import MachineFault, command
from trainer.__main__ import read_command_line
from trainer.loop import train as run_training
from trainer.peers.failure import failure_of


def a_file_for_checkpoints(run):
    run.mkdir()
    (run / "checkpoints").write_text("mine")


def a_folder_for_requeue(run):
    (run / "requeue").mkdir(parents=True)


def a_link_to_nothing(run):
    run.symlink_to(run.with_name("nowhere") / "at" / "all")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_file_for_checkpoints, "/run/checkpoints: something else is there already: choose another path"),
        (a_folder_for_requeue, "/run/requeue: is a folder, but a file of this name is written after a stop; rename it"),
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
