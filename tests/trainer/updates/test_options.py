"""Options of an update: averaged weights, schedules, beta-NLL, the switch of the optimiser."""

import pytest
import torch
from support.training import events, train

from trainer.config.config import load_config
from trainer.process_group import single
from trainer.run_folder.checkpoint import complete_checkpoints, read
from trainer.run_folder.restore import averaged, build_model
from trainer.updates.evaluation import exact_variance, held_out
from trainer.updates.streams import Passes


@pytest.mark.parametrize(
    "fields",
    [
        {"optimiser__ema_images": 300},
        {"objective__kl_warmup_images": 1000},
        {"variance__beta_nll": 0.5},
        {"optimiser__warmup_images": 300, "optimiser__schedule": "constant"},
        {"optimiser__at_switch": "reset"},
        {"optimiser__at_switch": "keep"},
        {"model__norm": "group", "model__residual_blocks": 1, "model__activation": "relu"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_every_option_trains_both_stages(digits_shards, tmp_path, fields):
    run = train(digits_shards, tmp_path, "option", **fields)
    first, second = events(run, "stage_end")
    assert second["elbo"] > first["elbo"]


def test_a_batch_larger_than_an_epoch_is_said_to_take_all_of_its_images(digits_shards, tmp_path, capfd):
    train(digits_shards, tmp_path, "one-update", data__global_batch=1400, stage2__max_epochs=0)
    said = "data.global_batch is 1,400 and split 'train' has 1,397 images: each update takes all of them"
    assert capfd.readouterr().err.count(said) == 1


def test_with_averaged_weights_a_stage_is_measured_and_ended_with_the_averages(digits_shards, tmp_path):
    fields = {"optimiser__ema_images": 300, "checkpoint__keep_last": 100}
    run = train(digits_shards, tmp_path, "averaged", **fields)
    measured = {event["images"]: event["elbo"] for event in events(run, "valid")}
    config = load_config(run)
    for folder in complete_checkpoints(run):
        saved = read(folder)
        model = build_model(config, saved.state.image_shape, per_pixel=saved.state.per_pixel)
        model.load_state_dict(averaged(saved.training))
        if saved.state.stages.ended:
            assert all(torch.equal(value, saved.model[name]) for name, value in model.state_dict().items())
            exact = exact_variance(model, Passes(config.data), config.seed, single())
            if saved.state.stages.stage == 1:
                assert model.dataset_variance == pytest.approx(exact, rel=1e-6)
                assert events(run, "stage_start")[0]["floor"] == pytest.approx(0.5 * exact, rel=1e-6)
        elif saved.state.images in measured:
            found = held_out(model, Passes(config.data), config.seed, single()).elbo
            assert found == pytest.approx(measured[saved.state.images], rel=1e-6)
            assert any(not torch.equal(value, saved.model[name]) for name, value in model.state_dict().items())
