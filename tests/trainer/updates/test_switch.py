"""The switch to stage 2: where the variance starts, the learning rates, Adam's moments, and the held-out ELBO."""

import shutil

import numpy as np
import pytest
import torch
from support.training import events, train, weights

from trainer.config.config import Config
from trainer.config.sections import ModelConfig, ObjectiveConfig, OptimiserConfig, VarianceConfig
from trainer.engines.engine import build_adam, load_adam_state, moments_at_switch
from trainer.networks.model import SigmaVAE
from trainer.objectives.objective import Objective
from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.updates.schedules import learning_rates

THIN = ModelConfig(encoder_channels=(4,), decoder_channels=(4, 4), hidden=0, latent_dim=2)
BATCH, CAP = 50, 10_000


@pytest.mark.parametrize("variance", [1e-6, 1e-3, 0.02, 0.3])
def test_stage_2_starts_with_the_variance_of_stage_1_at_every_pixel_whatever_the_latents_are(variance):
    model = SigmaVAE((3, 8, 8), THIN, initial_variance=variance)
    z = 3 * torch.randn(16, 2)
    mean = model.decode(z).mean
    model.add_variance_head(0.5 * variance)
    output = model.decode(z)
    assert output.variance.flatten().tolist() == pytest.approx([variance] * output.variance.numel(), rel=1e-5)
    assert torch.equal(output.mean, mean)


def rates(stage: int, **optimiser) -> np.ndarray:
    """(updates, 2) learning rates of the networks and of the head over a stage of 10,000 images."""
    config = Config(optimiser=OptimiserConfig(learning_rate=0.004, **optimiser))
    fields = {"stage": stage, "stage_cap": CAP, "batch_images": BATCH}
    found = [learning_rates(config, stage_images=t, images=10**6 + t, **fields) for t in range(0, CAP, BATCH)]
    return np.array([(rate.networks, rate.variance_head) for rate in found])


def cosine(images: np.ndarray, largest: float, least: float) -> np.ndarray:
    return least + (largest - least) * (1 + np.cos(np.pi * images / CAP)) / 2


def test_the_networks_go_on_at_the_rate_at_which_stage_1_ended_and_the_head_starts_at_that_of_stage_2():
    seen = np.arange(0, CAP, BATCH)
    first, second = rates(1, stage2_fraction=0.5), rates(2, stage2_fraction=0.5)
    assert first[:, 0] == pytest.approx(cosine(seen, 0.004, 0.0002))
    whole = cosine(seen, 0.002, 0.0001)
    assert second[:, 1] == pytest.approx(whole)
    risen = np.minimum(1, (seen + BATCH) / (2000 + BATCH))
    assert second[:, 0] == pytest.approx(0.0002 + risen * (whole - 0.0002))
    assert second[0, 0] < 1.5 * first[-1, 0]
    steps = np.diff(np.concatenate([first[-20:, 0], second[:, 0]]))
    assert np.abs(steps).max() < 0.03 * second[:, 0].max()


def test_the_networks_rise_at_the_switch_in_images_under_a_constant_schedule_too():
    found = rates(2, schedule="constant", switch_warmup_images=1000)
    assert set(found[:, 1]) == {0.004}
    assert found[:20, 0] == pytest.approx(np.linspace(0.0002, 0.004, 22)[1:-1])
    assert set(found[20:, 0]) == {0.004}
    assert set(rates(2, schedule="constant", switch_warmup_images=0)[:, 0]) == {0.004}


def test_a_rate_of_stage_2_below_the_last_of_stage_1_needs_no_rise():
    found = rates(2, stage2_fraction=0.01)
    assert found[:, 0] == pytest.approx(found[:, 1])


def test_at_the_switch_adams_estimates_stay_and_their_memory_is_that_of_the_first_moment():
    config = Config(model=THIN)
    torch.manual_seed(0)
    objective = Objective(SigmaVAE((1, 8, 8), THIN), ObjectiveConfig(), VarianceConfig())
    adam, gradients = build_adam(objective, config), []
    weight = objective.model.to_mean.weight

    def update(gradient: torch.Tensor) -> torch.Tensor:
        before = weight.detach().clone()
        weight.grad = gradient
        adam.step()
        return (weight - before).detach()

    for _ in range(500):
        gradients.append(torch.randn_like(weight))
        update(gradients[-1])
    state = {f"{name}/to_mean.weight": value.detach().clone() for name, value in adam.state[weight].items()}
    load_adam_state(adam, objective, moments_at_switch(state, config.optimiser))

    # Adam by its definition in float64. Its quotients, and so the update, are as if nothing had happened.
    beta1, beta2 = config.optimiser.betas
    mean = square = torch.zeros_like(weight).double()
    for gradient in gradients:
        mean, square = mean.lerp(gradient.double(), 1 - beta1), square.lerp(gradient.double().square(), 1 - beta2)
    mean, square = mean / (1 - beta1**500), square / (1 - beta2**500)
    mean, square = mean * (1 - beta1**10), square * (1 - beta2**10)
    lr = adam.param_groups[0]["lr"]
    # Gradients a hundred times as large: 30 updates later the steps are of the size of the learning rate again.
    for steps in range(11, 41):
        gradient = 100 * torch.randn_like(weight)
        mean, square = mean.lerp(gradient.double(), 1 - beta1), square.lerp(gradient.double().square(), 1 - beta2)
        step = -lr * (mean / (1 - beta1**steps)) / ((square / (1 - beta2**steps)).sqrt() + 1e-8)
        assert torch.allclose(update(gradient).double(), step, rtol=1e-3, atol=1e-6)
    assert step.square().mean().sqrt() < lr


@pytest.mark.parametrize(("at_switch", "kept"), [("keep", True), ("reset", False)])
def test_moments_are_kept_or_dropped_where_the_configuration_says_so(at_switch, kept):
    moments = {"step/a": torch.tensor(400.0), "exp_avg/a": torch.ones(3), "exp_avg_sq/a": torch.ones(3)}
    found = moments_at_switch(moments, OptimiserConfig(at_switch=at_switch))
    assert found == (moments if kept else {})


def test_moments_of_fewer_updates_than_the_first_moment_looks_back_over_stay_as_they_are():
    moments = {"step/a": torch.tensor(7.0), "exp_avg/a": torch.ones(3), "exp_avg_sq/a": torch.ones(3)}
    assert moments_at_switch(moments, OptimiserConfig()) == moments


# Variants of a training that differ in what the switch must bear.
CASES = {
    "large rate": {"optimiser__learning_rate": 0.004},
    "clipped gradients of averaged weights": {"optimiser__max_grad_norm": 2000.0, "optimiser__ema_images": 300},
    "group norm": {"model__norm": "group", "model__activation": "relu"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_held_out_elbo_falls_by_less_than_a_fiftieth_of_its_gain_at_the_switch(digits_shards, tmp_path, case):
    fields = {"stage1__max_epochs": 4, "stage2__max_epochs": 2, "stage2__check_images": 150, "stage2__eps": -1e9}
    run = train(digits_shards, tmp_path, "switched", **fields | CASES[case])
    found = [events(run, "stage_start")[0]["elbo"]]
    found += [event["elbo"] for event in events(run, "valid") if event["stage"] == 2]
    fall = np.maximum.accumulate(found) - found
    assert max(found) > found[0]
    assert fall.max() < 0.02 * (max(found) - found[0])


def test_a_run_resumed_amid_the_rise_at_the_switch_ends_in_the_same_bits(digits_shards, tmp_path):
    fields = {"stage2__max_epochs": 0.8, "checkpoint__keep_last": 100, "checkpoint__every_images": 300}
    whole = train(digits_shards, tmp_path, "whole", **fields)
    shutil.copytree(whole, tmp_path / "resumed")
    run = tmp_path / "resumed"
    later = [folder for folder in complete_checkpoints(run) if int(folder.name) > 1397 + 300]
    assert len(later) >= 2
    for folder in later:
        shutil.rmtree(folder)
    train(digits_shards, tmp_path, "resumed", **fields)
    assert events(run, "resume")
    ours, theirs = weights(run), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
