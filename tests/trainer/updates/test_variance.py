"""sigma^2 by its three updates, the exact pass, and the switch to stage 2 (decisions D5 and D6)."""

import numpy as np
import pytest
import torch
from support.training import events, train

from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from trainer.config.sections import DataConfig, ModelConfig, VarianceConfig
from trainer.networks.model import SigmaVAE
from trainer.process_group import single
from trainer.run_folder.restore import load_model
from trainer.updates.evaluation import exact_variance
from trainer.updates.learner import VarianceUpdate, smoothing_images
from trainer.updates.streams import Passes


@pytest.fixture(scope="module", params=["adam", "closed_form", "epoch"])
def run(request, digits_shards, tmp_path_factory):
    return train(
        digits_shards,
        tmp_path_factory.mktemp("runs"),
        request.param,
        variance__update=request.param,
        stage1__max_epochs=2,
        variance__learning_rate=0.05,
    )


def test_the_variance_at_the_end_of_stage_1_is_equation_9_over_the_training_set(run, digits_shards):
    model = load_model(run, "stage1")
    square_error = pixels = 0.0
    generator = torch.Generator().manual_seed(123)  # noise of our own
    with torch.no_grad():
        for batch in ShardStream(str(digits_shards), split="train", global_batch=100, shuffle=False):
            x = batch.image.float() / 255
            mean, std = model.encode(x)
            z = mean + std * torch.randn(mean.shape, generator=generator)
            square_error += (model.decode(z).mean.double() - x.double()).square().sum().item()
            pixels += x.numel()
    assert pixels == Manifest.load(str(digits_shards)).num_samples("train") * 28 * 28
    assert model.dataset_variance == pytest.approx(square_error / pixels, rel=0.01)


def test_stage_2_begins_at_the_elbo_at_which_stage_1_ended(run):
    (end, _), (begin,) = events(run, "stage_end"), events(run, "stage_start")
    assert begin["elbo"] == pytest.approx(end["elbo"], rel=1e-5)


def test_the_floor_of_stage_2_is_half_the_variance_of_the_data_set(run):
    model = load_model(run)
    assert model.per_pixel
    assert model.variance_floor.item() == pytest.approx(0.5 * model.dataset_variance)
    with torch.no_grad():
        assert (model.decode(torch.randn(8, 4)).variance >= model.variance_floor).all()


def test_the_variance_of_the_data_set_is_frozen_in_stage_2(run):
    assert load_model(run).dataset_variance == load_model(run, "stage1").dataset_variance


def test_closed_form_is_a_mean_of_the_newest_eighth_of_the_batches_then_a_running_mean():
    model = SigmaVAE((1, 8, 8), ModelConfig(encoder_channels=(4,), decoder_channels=(4,), hidden=0, latent_dim=2))
    update = VarianceUpdate(VarianceConfig(initial=7.0, smoothing_images=40), torch.device("cpu"), 1000)
    newest = np.random.default_rng(0).uniform(0.01, 0.5, 60)  # equation 9 on each batch of 10 images
    found = []
    for variance in newest:
        update.after_batch(model, torch.tensor(variance * 10 * 64, dtype=torch.float64), 10, torch.tensor(True))
        found.append(model.dataset_variance)
    expected = [newest[0]]
    for count, variance in enumerate(newest[1:], start=2):
        weight = max(min(8 / count, 1), 10 / 40)
        expected.append((1 - weight) * expected[-1] + weight * variance)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_batch_left_out_changes_neither_the_variance_nor_the_weight_of_the_next():
    model = SigmaVAE((1, 8, 8), ModelConfig(encoder_channels=(4,), decoder_channels=(4,), hidden=0, latent_dim=2))
    update = VarianceUpdate(VarianceConfig(smoothing_images=1000), torch.device("cpu"), 1000)
    for variance, finite in (*[(0.2, True)] * 9, (float("nan"), False), (0.4, True)):
        update.after_batch(model, torch.tensor(variance * 10 * 64, dtype=torch.float64), 10, torch.tensor(finite))
    assert model.dataset_variance == pytest.approx(0.2 * 0.2 + 0.8 * 0.4, rel=1e-5)


@pytest.mark.parametrize("batch", [10, 50, 250])
def test_the_mean_looks_back_over_the_same_images_whatever_the_batch(batch):
    model = SigmaVAE((1, 8, 8), ModelConfig(encoder_channels=(4,), decoder_channels=(4,), hidden=0, latent_dim=2))
    update = VarianceUpdate(VarianceConfig(smoothing_images=1000), torch.device("cpu"), 10**6)

    def feed(variance: float, images: int) -> None:
        for _ in range(images // batch):
            error = torch.tensor(variance * batch * 64, dtype=torch.float64)
            update.after_batch(model, error, batch, torch.tensor(True))

    feed(0.4, 20_000)
    feed(0.1, 1000)
    assert model.dataset_variance == pytest.approx(0.1 + 0.3 * np.exp(-1), abs=0.02)


def test_the_mean_looks_back_over_an_epoch_at_most():
    assert smoothing_images(VarianceConfig(), 55_000) == 1000
    assert smoothing_images(VarianceConfig(), 60) == 60
    assert smoothing_images(VarianceConfig(smoothing_images=6400), 60) == 6400


def test_the_variance_in_use_keeps_up_with_equation_9(digits_shards, tmp_path):
    fields = {"stage1__max_epochs": 6, "stage2__max_epochs": 0, "log__every_images": 500}
    run = train(digits_shards, tmp_path, "followed", **fields, optimiser__learning_rate=0.004)
    ratios = [event["sigma2"] / event["closed_form_sigma2"] for event in events(run, "train")][2:]
    assert min(ratios) > 0.8
    assert max(ratios) < 1.25


def test_an_absolute_floor_is_taken_as_given(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "absolute", variance__floor=0.002, stage1__max_epochs=1)
    assert load_model(run).variance_floor.item() == pytest.approx(0.002)


def test_the_exact_variance_is_the_same_for_any_batch_size(run, digits_shards):
    model = load_model(run, "stage1")
    # Noise differs with the cut into batches; over a million pixels that moves the mean by well under a percent.
    cuts = [DataConfig(shards=str(digits_shards), global_batch=batch) for batch in (64, 1000)]
    values = [exact_variance(model, Passes(cut), 0, single()) for cut in cuts]
    assert values[0] == pytest.approx(values[1], rel=0.01)
