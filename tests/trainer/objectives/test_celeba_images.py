"""Every objective trains on images in CelebA's form: JPEGs of 178 x 218, cropped and resized to 64 x 64 in colour."""

import pytest
import torch
from support.celeba_tree import write_celeba
from support.running import ROOT, run_module

from trainer.config.config import load_config
from trainer.loop import train
from trainer.run_folder.log import read_events
from trainer.run_folder.restore import load_model

# The configuration of the repository with thinner networks.
FIELDS = {
    "data.global_batch": 40,
    "data.valid_images": 30,
    "model.latent_dim": 8,
    "model.encoder_channels": [8, 8, 16, 16],
    "model.decoder_channels": [16, 16, 8, 8],
    "stage1.max_epochs": 5,
    "stage1.check_images": 240,
    "optimiser.switch_warmup_images": 0,
    "stage2.max_epochs": 1,
    "log.every_images": 80,
    "log.to": [],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """240 images for training, 30 held out, 30 for testing."""
    folder = tmp_path_factory.mktemp("celeba")
    source, out = write_celeba(folder / "source"), folder / "shards"
    done = run_module("data_shards", "build", "celeba", "--source", str(source), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", ["sigma_vae", "vae", "beta_vae", "fixed", "dip_vae_i", "dip_vae_ii", "wae_mmd"])
def test_the_error_falls(shards, tmp_path, name):
    given = {"objective.name": name, "data.shards": str(shards), "runs": str(tmp_path)}
    if name == "fixed":
        given["objective.sigma2"] = 0.05
    run = train(load_config(ROOT / "trainer" / "configs" / "celeba_small.yaml", FIELDS | given))
    errors = [event["closed_form_sigma2"] for event in read_events(run) if event["event"] == "train"]
    assert min(errors) < 0.9 * errors[0]
    model = load_model(run)
    assert model.per_pixel == (name == "sigma_vae")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
