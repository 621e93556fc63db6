"""One configuration for any folder of images: what `auto` stands for, by the size of the images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.running import ROOT
from support.training import train

from trainer.config.automatic import reader_processes, resolved
from trainer.config.config import load_config
from trainer.config.sections import DataConfig
from trainer.networks.model import SigmaVAE
from trainer.run_folder.checkpoint import complete_checkpoints

IMAGES = ROOT / "trainer" / "configs" / "images.yaml"


@pytest.mark.parametrize(
    ("side", "encoder"),
    [
        (8, (32,)),
        (28, (32, 64)),
        (32, (32, 64, 128)),
        (48, (32, 64, 128)),
        (64, (32, 64, 128, 256)),
        (128, (32, 64, 128, 256, 256)),
    ],
)
def test_the_encoder_halves_images_down_to_4_to_7_pixels(side, encoder):
    model = resolved(load_config(IMAGES), (3, side, side)).model
    assert (model.encoder_channels, model.decoder_channels) == (encoder, encoder[::-1])


@given(st.integers(1, 160), st.integers(1, 160), st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_images_of_any_size_have_networks(height, width, channels):
    config = resolved(load_config(IMAGES), (channels, height, width))
    with torch.device("meta"):
        model = SigmaVAE((channels, height, width), config.model)
        assert model.decode(model.encode(torch.zeros(2, channels, height, width)).mean).mean.shape[1:] == (
            channels,
            height,
            width,
        )


def test_channels_that_are_given_stay():
    config = resolved(load_config(IMAGES, {"model.encoder_channels": [8, 16]}), (1, 64, 64))
    assert config.model.encoder_channels == (8, 16)
    assert config.model.decoder_channels == (256, 128, 64, 32)


def test_a_run_stores_the_channels_that_were_chosen_and_goes_on_with_auto(digits_shards, tmp_path):
    fields = {"model__encoder_channels": "auto", "model__decoder_channels": "auto", "stage2__max_epochs": 0}
    first = train(digits_shards, tmp_path, "automatic", stage1__max_epochs=0.1, **fields)
    stored = load_config(first).model
    assert (stored.encoder_channels, stored.decoder_channels) == ((32, 64), (64, 32))
    saved = complete_checkpoints(first)
    assert train(digits_shards, tmp_path, "automatic", stage1__max_epochs=0.1, **fields) == first
    assert complete_checkpoints(first) == saved


def test_a_small_data_set_is_seen_as_often_as_the_least_cap_in_images_says():
    stage = load_config(IMAGES).stage1
    assert stage.cap(train_images=1000) == stage.min_images
    assert stage.cap(train_images=10**6) == stage.max_epochs * 10**6


@pytest.mark.parametrize(
    ("workers", "raw", "device", "processors", "expected"),
    [
        ("auto", True, "cuda", 16, 0),
        ("auto", False, "cuda", 4, 3),
        ("auto", False, "cuda", 64, 8),
        ("auto", False, "cuda", 1, 0),
        ("auto", False, "cpu", 16, 0),
        (2, True, "cpu", 1, 2),
    ],
)
def test_readers_are_started_where_images_are_decoded_for_a_gpu(workers, raw, device, processors, expected):
    data = DataConfig(workers=workers)
    assert reader_processes(data, raw=raw, device=device, processors=processors) == expected
