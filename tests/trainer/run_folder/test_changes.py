"""Another configuration for a run folder, and configurations that nothing can be trained with."""

import shutil

import pytest
from support.running import run_module
from support.training import events, train, words

from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.config.config import load_config
from trainer.loop import train as run_training
from trainer.run_folder.checkpoint import complete_checkpoints, read_state

STOPPED = {"checkpoint__walltime_minutes": 1e-4}


def go_on(shards, runs, name, **fields):
    return run_training(read_command_line(words(shards, runs, name, **fields)).config, allow_change=True)


@pytest.fixture
def begun(digits_shards, tmp_path):
    """A run that was stopped after its first update."""
    return train(digits_shards, tmp_path, "begun", **STOPPED)


@pytest.mark.parametrize("left", ["seed: 7\n", "", "seed: [\n"])
def test_a_run_folder_in_which_nothing_was_trained_takes_any_configuration(left, digits_shards, tmp_path):
    run = tmp_path / "fresh"
    run.mkdir()
    (run / "config.yaml").write_text(left)
    assert train(digits_shards, tmp_path, "fresh", **STOPPED) == run
    assert load_config(run).seed == 0
    assert complete_checkpoints(run)


def test_a_trained_run_goes_on_under_another_learning_rate_where_that_is_allowed(begun, digits_shards, tmp_path):
    changed = {"optimiser__learning_rate": 0.0005, "optimiser__max_grad_norm": 10.0}
    at = read_state(complete_checkpoints(begun)[-1]).images
    message = "optimiser.learning_rate: 0.001 -> 0.0005; optimiser.max_grad_norm: 0.0 -> 10.0.*add --allow-change"
    with pytest.raises(InputError, match=message):
        train(digits_shards, tmp_path, "begun", **changed)
    go_on(digits_shards, tmp_path, "begun", **changed, stage2__max_epochs=0)
    assert load_config(begun).optimiser.learning_rate == 0.0005
    assert load_config(begun / "configurations" / f"{at:012d}.yaml").optimiser.learning_rate == 0.001
    (event,) = events(begun, "configuration")
    assert event["images"] == at
    assert event["changes"] == [
        "stage2.max_epochs: 0.5 -> 0.0",
        "optimiser.learning_rate: 0.001 -> 0.0005",
        "optimiser.max_grad_norm: 0.0 -> 10.0",
    ]
    # Continued once more, it is the run's own configuration.
    assert train(digits_shards, tmp_path, "begun", **changed, stage2__max_epochs=0) == begun


def test_where_the_shards_lie_now_stands_in_the_configuration_that_measurements_read(begun, digits_shards, tmp_path):
    moved = shutil.copytree(digits_shards, tmp_path / "moved")
    train(moved, tmp_path, "begun", **STOPPED)
    assert load_config(begun).data.shards == str(moved)
    assert not (begun / "configurations").exists()


def test_what_alters_what_was_learnt_is_never_accepted(begun, digits_shards, tmp_path):
    before = (begun / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"\(seed: 0 -> 1\); restore these fields or choose another name"):
        go_on(digits_shards, tmp_path, "begun", seed=1)
    assert (begun / "config.yaml").read_text() == before
    assert not (begun / "configurations").exists()


def test_a_run_whose_only_checkpoints_are_links_does_not_begin_anew(begun, digits_shards, tmp_path):
    (folder,) = complete_checkpoints(begun)
    folder.symlink_to(folder.rename(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=rf"{folder}: is a link, and the run has no other checkpoint"):
        train(digits_shards, tmp_path, "begun", **STOPPED)


def test_a_run_whose_only_checkpoint_has_the_name_of_another_place_does_not_begin_anew(begun, digits_shards, tmp_path):
    (folder,) = complete_checkpoints(begun)
    moved = folder.rename(folder.with_name(f"{999:012d}"))
    message = "holds the checkpoint after 30 images, and the run has no other checkpoint; give it back its name"
    with pytest.raises(InputError, match=f"^{moved}: {message}"):
        train(digits_shards, tmp_path, "begun", **STOPPED)


def test_an_incomplete_checkpoint_is_named_also_where_there_is_no_other(begun, digits_shards, tmp_path, capfd):
    (folder,) = complete_checkpoints(begun)
    (folder / "COMPLETE").unlink()
    train(digits_shards, tmp_path, "begun", **STOPPED)
    assert f"{folder}: has no COMPLETE, so it was passed over" in capfd.readouterr().err


def test_a_copy_of_a_checkpoint_under_a_later_name_does_not_take_the_run_back(begun, digits_shards, tmp_path, capfd):
    copy = shutil.copytree(complete_checkpoints(begun)[-1], begun / "checkpoints" / f"{999:012d}")
    for _ in range(2):
        train(digits_shards, tmp_path, "begun", **STOPPED)
    assert [read_state(folder).images for folder in complete_checkpoints(begun)][-1] == 90
    assert f"{copy}: holds the checkpoint after 30 images, so it was passed over" in capfd.readouterr().err


def test_a_link_to_a_newer_checkpoint_is_passed_over_and_named(begun, digits_shards, tmp_path, capfd):
    link = begun / "checkpoints" / f"{999:012d}"
    link.symlink_to(complete_checkpoints(begun)[-1])
    train(digits_shards, tmp_path, "begun", **STOPPED)
    assert f"{link}: is a link, so it was passed over" in capfd.readouterr().err
    assert link.is_symlink()


def test_a_trained_run_without_its_configuration_is_refused(begun, digits_shards, tmp_path):
    (begun / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"config\.yaml: is missing, but the run has checkpoints"):
        train(digits_shards, tmp_path, "begun")


def test_a_damaged_configuration_of_a_trained_run_is_named_with_its_file(begun, digits_shards, tmp_path):
    (begun / "config.yaml").write_text("")
    with pytest.raises(InputError, match=rf"{begun}/config\.yaml: is empty"):
        train(digits_shards, tmp_path, "begun")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model__kernel": 4, "model__encoder_channels": "[8,8,8,8,8,8]"},
            "error: model.encoder_channels: 6 convolutions with kernel 4 leave nothing of images of 28 x 28 pixels",
        ),
        (
            {"model__hidden": 100_000, "model__encoder_channels": "[100000,100000]"},
            "weights with gradients and moments need",
        ),
        ({"model__norm": "group", "model__encoder_channels": "[264]"}, "[264] does not suit group norm"),
        ({"model__norm": "batch", "data__global_batch": 1}, "data.global_batch: norm batch takes its statistics"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_nothing_is_written(fields, message, digits_shards, tmp_path):
    done = run_module("trainer", *words(digits_shards, tmp_path / "runs", "refused", **fields))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
