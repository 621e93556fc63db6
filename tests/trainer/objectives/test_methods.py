"""Every method of one stage trains, all in one architecture."""

import pytest
from support.training import events, train

from trainer.config.methods import METHODS
from trainer.config.sections import ObjectiveConfig
from trainer.objectives.objective import BatchPenalty, batch_penalty
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


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.penalty])
def test_the_penalty_of_a_method_is_found_by_its_name_in_the_table(name):
    assert isinstance(batch_penalty(ObjectiveConfig(name=name)), BatchPenalty)


def test_a_method_without_penalty_has_none():
    assert batch_penalty(ObjectiveConfig(name="sigma_vae")) is None
