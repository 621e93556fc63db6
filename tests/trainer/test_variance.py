"""sigma^2 by its three updates, the exact pass, and the switch to stage 2 (decisions D5 and D6)."""

import pytest
import torch
from training import events, train

from data_shards.manifest import Manifest
from data_shards.stream import ShardStream
from trainer.process_group import single
from trainer.restore import load_model
from trainer.sections import DataConfig
from trainer.variance import exact_variance


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


def test_an_absolute_floor_is_taken_as_given(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "absolute", variance__floor=0.002, stage1__max_epochs=1)
    assert load_model(run).variance_floor.item() == pytest.approx(0.002)


def test_the_exact_variance_is_the_same_for_any_batch_size(run, digits_shards):
    model = load_model(run, "stage1")
    # Noise differs with the cut into batches; over a million pixels that moves the mean by well under a percent.
    cuts = [DataConfig(shards=str(digits_shards), global_batch=batch) for batch in (64, 1000)]
    values = [exact_variance(model, cut, 0, single()) for cut in cuts]
    assert values[0] == pytest.approx(values[1], rel=0.01)
