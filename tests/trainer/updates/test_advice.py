"""Numbers that have gone wrong: what a run says of them, and what it refuses to keep."""

import numpy as np
import pytest
import torch
from support.running import run_module, write_idx
from support.training import events, train, words

from data_shards.io.errors import InputError
from data_shards.stream.stream import ShardStream
from trainer.config.config import load_config
from trainer.process_group import single
from trainer.run_folder.checkpoint import complete_checkpoints, newest_undamaged
from trainer.run_folder.finite import first_not_finite
from trainer.run_folder.restore import load_model
from trainer.updates.advice import StageEnd, at_stage_end, fallen, is_lost
from trainer.updates.evaluation import HeldOut, held_out
from trainer.updates.streams import Passes

ONE_STAGE = {"stage1__max_epochs": 1, "stage2__max_epochs": 0}


def measured(elbo: float, **fields) -> HeldOut:
    values = {
        "log_likelihood": elbo + 10,
        "kl": 10.0,
        "closed_form_sigma2": 0.05,
        "elbo_at_closed_form": elbo,
        "active_dimensions": 3,
        "mean_image_variance": 0.1,
        "elbo_of_mean_image": -200.0,
    }
    return HeldOut(elbo=elbo, **values | fields)


def stage_end(last: HeldOut, kept: HeldOut, **fields) -> StageEnd:
    values = {
        "stage": 1,
        "reason": "cap",
        "rising": False,
        "best_elbo": kept.elbo,
        "best_images": 500,
        "images": 1000,
        "restored": True,
        "train_elbo": last.elbo,
        "train_images": 60,
        "pixels": 784,
    }
    return StageEnd(last=last, kept=kept, **values | fields)


def messages(*args, **fields) -> str:
    return "\n".join(at_stage_end(stage_end(*args, **fields)))


def test_a_model_whose_training_elbo_keeps_rising_is_said_to_overfit():
    said = messages(measured(-82.0), measured(325.0), train_elbo=700.0)
    assert "overfits its 60 training images" in said
    assert "325.0 at image 500" in said
    assert "learning_rate" not in said


def test_a_model_whose_training_elbo_fell_too_is_said_to_have_diverged():
    said = messages(measured(-82.0), measured(325.0), train_elbo=-90.0)
    assert "diverged: lower optimiser.learning_rate" in said
    assert "overfits" not in said


def test_constant_images_are_named_and_nobody_is_told_to_train_longer():
    end = measured(3000.0, mean_image_variance=1e-12, elbo_of_mean_image=9000.0)
    said = messages(end, end, rising=True, best_images=1000)
    assert "hardly differ" in said
    assert "max_epochs" not in said


def test_a_stage_below_the_mean_image_that_does_not_rise_is_told_to_train_slower():
    end = measured(-300.0)
    assert "optimiser.learning_rate" in messages(end, end)
    assert "raise stage1.max_epochs" not in messages(end, end)


def test_a_stage_below_the_mean_image_that_still_rises_is_told_to_train_longer_first():
    end = measured(-300.0)
    assert "raise stage1.max_epochs" in messages(end, end, best_images=1000)


def test_no_active_dimension_is_named_as_posterior_collapse():
    end = measured(-190.0, active_dimensions=0)
    assert "posterior collapse" in messages(end, end)


def test_a_sound_stage_says_nothing():
    end = measured(300.0)
    assert messages(end, end, best_images=1000) == ""


def test_a_fall_within_a_stage_is_told_apart_by_the_training_elbo():
    fields = {"best": 300.0, "best_images": 500, "images": 900, "pixels": 784}
    assert fallen(now=299.0, train=290.0, **fields) is None
    assert "diverges" in (fallen(now=100.0, train=90.0, **fields) or "")
    assert "overfits" in (fallen(now=100.0, train=500.0, **fields) or "")


def test_weights_far_below_the_mean_image_are_lost_and_a_new_network_is_not():
    assert is_lost(measured(-19241.0), 784)
    assert not is_lost(measured(-570.0), 784)


def test_the_elbo_of_the_mean_image_is_that_of_numpy(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "short", **ONE_STAGE | {"stage1__max_epochs": 0.1})
    config = load_config(run)
    found = held_out(load_model(run), Passes(config.data), config.seed, single())
    batches = ShardStream(str(digits_shards), split="valid", global_batch=100, shuffle=False)
    x = np.concatenate([batch.image.numpy() for batch in batches])[: config.data.valid_images] / 255
    variance = x.var(axis=0, ddof=1).mean()
    assert found.mean_image_variance == pytest.approx(variance, rel=1e-6)
    assert found.elbo_of_mean_image == pytest.approx(-0.5 * 784 * (np.log(2 * np.pi * variance) + 1), rel=1e-6)


def test_a_diverged_stage_ends_the_run_in_one_line(digits_shards, tmp_path):
    fields = ONE_STAGE | {"optimiser__learning_rate": 30, "optimiser__schedule": "constant"}
    done = run_module("trainer", *words(digits_shards, tmp_path, "wild", **fields))
    assert done.returncode == 2, done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert "optimiser.learning_rate" in error
    assert "Traceback" not in done.stderr


def test_constant_images_end_with_the_reason(tmp_path):
    source = tmp_path / "grey"
    source.mkdir()
    for name, count in (("train", 200), ("t10k", 20)):
        write_idx(source / f"{name}-images-idx3-ubyte.gz", np.full((count, 28, 28), 90))
        write_idx(source / f"{name}-labels-idx1-ubyte.gz", np.zeros(count))
    shards = tmp_path / "shards"
    words_of_build = ("build", "mnist", "--source", str(source), "--out", str(shards), "--valid", "50")
    assert run_module("data_shards", *words_of_build).returncode == 0
    run = train(shards, tmp_path, "constant", stage1__max_epochs=4)
    said = [event["message"] for event in events(run, "warning")]
    assert any("hardly differ" in message for message in said)
    assert not any("max_epochs" in message for message in said)


def test_batch_norm_with_a_last_batch_of_one_and_single_pixels_trains_soundly(digits_shards, tmp_path):
    # 1397 images: the last batch of an epoch has one. Five halvings of 28 pixels end in a 1 x 1 feature map.
    fields = {"data__global_batch": 349, "model__norm": "batch", "model__encoder_channels": "[4,4,8,8,8]"}
    run = train(digits_shards, tmp_path, "single", **ONE_STAGE | {"stage1__max_epochs": 2}, **fields)
    assert all(torch.isfinite(value).all() for value in load_model(run).state_dict().values())
    assert np.isfinite(events(run, "stage_end")[0]["elbo"])


def test_weights_that_are_not_finite_are_never_written_and_the_last_sound_checkpoint_is_named(
    digits_shards, tmp_path, monkeypatch
):
    from trainer.updates.learner import Learner

    original = Learner.update

    def poisoned(self, batch, stages, *, stop):
        result = original(self, batch, stages, stop=stop)
        if batch.start == 780:  # as memory or a faulty buffer would
            self.model.to_posterior.bias.data[0] = float("nan")
        return result

    monkeypatch.setattr(Learner, "update", poisoned)
    with pytest.raises(InputError, match=r"not finite .* the last sound checkpoint is .*000000000\d\d0") as caught:
        train(digits_shards, tmp_path, "poisoned", **ONE_STAGE, checkpoint__bad_steps=1000)
    run = tmp_path / "poisoned"
    assert caught.value.parameter == "optimiser.learning_rate"
    for folder in complete_checkpoints(run):
        assert int(folder.name) <= 780
    saved, damaged = newest_undamaged(run)
    assert damaged == ()
    assert saved is not None
    assert first_not_finite(saved.model) is None


def test_skipped_updates_and_damaged_checkpoints_are_on_the_terminal(digits_shards, tmp_path, capsys):
    run = train(digits_shards, tmp_path, "told", checkpoint__walltime_minutes=0.00001)
    newest = complete_checkpoints(run)[-1]
    train(digits_shards, tmp_path, "told", checkpoint__walltime_minutes=0.00001)
    newest = complete_checkpoints(run)[-1] / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    train(digits_shards, tmp_path, "told")
    said = capsys.readouterr().err
    assert said.count(f"warning: {newest}") == 1
