"""A run goes on with a longer last stage, and its folder may be renamed, moved and linked."""

import pytest
import torch
from support.training import events, train, weights, words

from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.config.config import load_config
from trainer.loop import train as run_training

# A cosine schedule would run to the new end, so that learning rates before the old end were others.
SHORT = {"stage1__max_epochs": 0.5, "stage2__max_epochs": 0.2, "optimiser__schedule": "constant"}
LONG = SHORT | {"stage2__max_epochs": 0.4}


@pytest.fixture(scope="module")
def long_run(digits_shards, tmp_path_factory):
    """Trained with the longer stage from the start."""
    return weights(train(digits_shards, tmp_path_factory.mktemp("runs"), "long", **LONG))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_finished_run_is_extended_to_the_bits_of_a_longer_one(digits_shards, tmp_path, long_run):
    run = train(digits_shards, tmp_path, "run", **SHORT)
    assert not equal(weights(run), long_run)
    train(digits_shards, tmp_path, "run", **LONG)
    assert equal(weights(run), long_run)
    assert load_config(run).stage2.max_epochs == 0.4
    assert len(events(run, "stage_end")) == 3  # stage 1, and stage 2 twice


def test_a_renamed_moved_and_linked_folder_goes_on(digits_shards, tmp_path, long_run):
    run = train(digits_shards, tmp_path, "old", **SHORT)
    (tmp_path / "elsewhere").mkdir()
    run.rename(tmp_path / "elsewhere" / "data")
    (tmp_path / "new").symlink_to(tmp_path / "elsewhere" / "data")
    train(digits_shards, tmp_path, "new", **LONG)
    assert equal(weights(tmp_path / "new"), long_run)
    assert (tmp_path / "new").is_symlink()
    assert not run.exists()


def test_the_configuration_in_a_renamed_folder_means_this_folder(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "old", **SHORT)
    renamed = run.rename(tmp_path / "renamed")
    asked = read_command_line(["--config", str(renamed / "config.yaml")]).config
    assert asked.folder == renamed
    run_training(asked)
    assert not run.exists()
    other = read_command_line(["--config", str(renamed / "config.yaml"), "--name", "other"]).config
    assert other.folder == tmp_path / "other"


def test_a_shorter_last_stage_and_a_longer_first_one_are_refused(digits_shards, tmp_path):
    train(digits_shards, tmp_path, "run", **SHORT)
    for fields in ({"stage2__max_epochs": 0.1}, {"stage1__max_epochs": 0.8}):
        asked = read_command_line(words(digits_shards, tmp_path, "run", **SHORT | fields))
        with pytest.raises(InputError, match="max_epochs"):
            run_training(asked.config)
