"""Every method and network trains, in one architecture."""

import json

import pytest
import torch
from support.training import events, train, weights

from trainer.config.sections import ModelConfig
from trainer.networks.model import SigmaVAE
from trainer.run_folder.restore import load_model


@pytest.mark.parametrize(
    ("name", "variance"),
    [("vae", 0.5), ("beta_vae", 1.0), ("fixed", 0.07), ("dip_vae_i", 0.5), ("dip_vae_ii", 0.5), ("wae_mmd", 0.5)],
)
def test_a_method_of_one_stage_lowers_its_error_and_keeps_its_variance(digits_shards, tmp_path, name, variance):
    given = {"objective__sigma2": variance} if name == "fixed" else {}
    run = train(digits_shards, tmp_path, name, objective__name=name, log__every_images=150, **given)
    errors = [event["closed_form_sigma2"] for event in events(run, "train")]
    assert errors[-1] < errors[0]
    assert load_model(run).dataset_variance == pytest.approx(variance)
    assert not events(run, "stage_start")


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


def test_a_profile_of_the_asked_for_updates_is_written(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "profiled", log__profile_steps=2, stage1__max_epochs=0.3, stage2__max_epochs=0)
    names = [event.get("name", "") for event in json.loads((run / "profile.json").read_text())["traceEvents"]]
    assert len([name for name in names if name.startswith("ProfilerStep")]) == 2
    assert any("Adam" in name for name in names)


def test_averaged_weights_are_evaluated_where_a_run_keeps_them(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "averaged", optimiser__ema_images=300)
    plain, evaluated = weights(run), load_model(run).state_dict()
    assert any(not torch.equal(plain[name], evaluated[name]) for name in plain)


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 64, 64), (1, 8, 8), (3, 33, 50)])
@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7])
def test_the_networks_fit_any_image_and_kernel(image_shape, kernel):
    config = ModelConfig(encoder_channels=(4, 8), decoder_channels=(8, 4, 4), kernel=kernel, hidden=8, latent_dim=3)
    model = SigmaVAE(image_shape, config)
    model.add_variance_head(0.25)
    x = torch.rand(2, *image_shape)
    mean, std = model.encode(x)
    output = model.decode(mean)
    assert mean.shape == std.shape == (2, 3)
    assert output.mean.shape == output.variance.shape == x.shape


def test_batch_norm_over_one_process_equals_torchs():
    from trainer.networks.norm import GlobalBatchNorm

    x = torch.randn(6, 5, 7, 3, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    ours, torchs = GlobalBatchNorm(5).double(), torch.nn.BatchNorm2d(5).double()
    weigh = torch.randn(6, 5, 7, 3, dtype=torch.float64)
    a, b = ours(x), torchs(y)
    (a * weigh).sum().backward()
    (b * weigh).sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.running_variance, torchs.running_var, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(y), rtol=1e-6, atol=1e-6)
