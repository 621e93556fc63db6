"""Options of an update: averaged weights, schedules, beta-NLL, the switch of the optimiser."""

import pytest
import torch
from support.training import events, train, weights

from trainer.run_folder.restore import load_model


@pytest.mark.parametrize(
    "fields",
    [
        {"optimiser__ema_images": 300},
        {"objective__kl_warmup_images": 1000},
        {"variance__beta_nll": 0.5},
        {"optimiser__warmup_images": 300, "optimiser__schedule": "constant"},
        {"optimiser__at_switch": "reset"},
        {"model__norm": "group", "model__residual_blocks": 1, "model__activation": "relu"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_every_option_trains_both_stages(digits_shards, tmp_path, fields):
    run = train(digits_shards, tmp_path, "option", **fields)
    first, second = events(run, "stage_end")
    assert second["elbo"] > first["elbo"]


def test_a_run_with_averaged_weights_is_evaluated_with_them(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "averaged", optimiser__ema_images=300)
    plain, evaluated = weights(run), load_model(run).state_dict()
    assert any(not torch.equal(plain[name], evaluated[name]) for name in plain)
