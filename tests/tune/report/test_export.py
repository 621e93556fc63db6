"""The best configuration as a file for the trainer."""

import shutil

import pytest
from support.running import run_module
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError
from trainer.config.config import load_config
from trainer.run_folder.restore import load_model
from tune.report.ranking import export_best, ranking
from tune.sweep_config import MeasureConfig, read_sweep
from tune.trial.folder import TrialOutcome, save_outcome
from tune.trial.record import trial_record


@pytest.fixture
def ranked(trial_folder, tmp_path):
    """A ranking of one finished trial."""
    folder = tmp_path / "finished"
    shutil.copytree(trial_folder, folder)
    save_outcome(folder, TrialOutcome(status="finished"))
    return ranking([trial_record(folder, MeasureConfig())], "elbo")


def test_the_trainer_takes_the_exported_best_configuration_as_it_is(tmp_path, ranked, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, fields={"stage1.max_epochs": 0.1, "stage2.max_epochs": 0}))
    path = tmp_path / "best.yaml"
    export_best(sweep, ranked, path)
    done = run_module("trainer", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "runs" / "best-of-sweep").latent_dim == 2
    with pytest.raises(InputError, match="no trial was trained to its end"):
        export_best(sweep, [], path)


def test_an_exported_configuration_names_folders_from_where_it_was_written(
    tmp_path, ranked, digits_shards, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    export_best(sweep, ranked, tmp_path / "best.yaml")
    assert load_config(tmp_path / "best.yaml").runs == "runs"
