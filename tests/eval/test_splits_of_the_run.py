"""A run that trains on another split than train: its codes, densities and real images are of that split."""

import json

import pytest
from support.distance_extractor import TINY
from support.running import run_module

from trainer.config.config import load_config
from trainer.loop import train

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_shards):
    """A run that trained on the 200 images of split test, with its codes, a mixture of 2 and a flow."""
    fields = {
        "runs": str(tmp_path_factory.mktemp("runs")),
        "name": "other-split",
        "data.shards": str(digits_shards),
        "data.train_split": "test",
        "data.global_batch": 50,
        "model.latent_dim": 2,
        "model.encoder_channels": [4],
        "model.decoder_channels": [4, 4],
        "model.hidden": 8,
        "stage1.max_epochs": 1,
        "stage2.max_epochs": 1,
        "log.to": [],
    }
    folder = train(load_config(None, fields))
    for command in (
        ("eval", "encode", "--run", str(folder)),
        ("trainer.mixture", "--run", str(folder), "--components", "2"),
        ("trainer.flow", "--run", str(folder), "--epochs", "1"),
    ):
        done = run_module(*command)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_splits_that_the_run_trains_on_and_holds_out_are_encoded(run):
    assert sorted(path.name for path in (run / "latents").iterdir()) == ["test", "valid"]


def test_the_mixture_is_fitted_to_the_codes_of_the_split_that_was_trained_on(run):
    (path,) = (run / "mixtures").glob("2-full/summary.json")
    summary = json.loads(path.read_text())
    assert (summary["train"]["points"], summary["codes"]["train"]["n"]) == (200, 200)


def test_the_flow_of_the_run_can_be_used(run, run_eval):
    words = ("sample", "--run", run, "--density", "flow", "--n", "4", "--out", run / "drawn")
    assert run_eval(*words)[0] == 0


def test_the_split_that_was_trained_on_is_compared_with_as_many_images_as_a_training_split(run, run_eval):
    for split, n in (("test", "50,000"), ("train", "10,000")):
        words = ("fid", "--run", run, "--from", "prior", "--split", split)
        assert f"{n} compared" in run_eval(*words, "--dry-run", *TINY)[1].out
        assert f"fewer than {n};" in run_eval(*words, "--n", "64", *TINY)[1].out


def test_real_training_images_are_of_the_split_that_was_trained_on(run, run_eval):
    code, said = run_eval("fid", "--run", run, "--from", "train", "--n", "201", "--split", "valid")
    assert code == 2
    assert "split test has 200" in said.err
