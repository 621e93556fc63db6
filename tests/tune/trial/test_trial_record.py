"""What is read of a trial from its run folder, and what counts as a configuration's own fault."""

import shutil

import pytest
import torch
from support.running import run_module
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError
from trainer.config.config import load
from trainer.loop import train
from trainer.run_folder.log import read_events
from trainer.run_folder.restore import load_model
from tune.export import export_best
from tune.report.ranking import ranking
from tune.search.trials import Trial, load_trial, note_failure, save_trial
from tune.sweep_config import read_sweep
from tune.trial.own_fault import own_fault
from tune.trial.record import headline, note_outcome, trial_record

TRIAL = Trial(phase="search", number=3, seed=1, fields={"model.latent_dim": 2})


@pytest.fixture(scope="module")
def trial_folder(tmp_path_factory, digits_run):
    """The run on the digits as if a sweep had trained it."""
    folder = tmp_path_factory.mktemp("trials") / TRIAL.name
    shutil.copytree(digits_run, folder)
    save_trial(folder, TRIAL)
    return folder


def test_a_trial_is_found_again_under_a_name_made_of_its_configuration_and_seed_alone(trial_folder):
    assert load_trial(trial_folder) == TRIAL
    assert TRIAL.name == "search-003-seed1"


def test_the_record_tells_size_time_and_the_end_of_each_stage_as_the_run_logged_them(trial_folder):
    record, events = trial_record(trial_folder), read_events(trial_folder)
    first, second = (event for event in events if event["event"] == "stage_end")
    assert (record["stage1_reason"], record["stage1_images"]) == (first["reason"], first["stage_images"])
    assert (record["stage2_sigma2"], record["stage2_kl"]) == (second["sigma2"], second["kl"])
    assert record["images"] == events[-1]["images"]
    assert record["stage1_seconds"] + record["stage2_seconds"] == pytest.approx(record["seconds"])
    assert record["final_elbo"] == record["checks"][-1][1] == second["elbo_at_closed_form"]
    learnt = sum(parameter.numel() for parameter in load_model(trial_folder).parameters())
    assert learnt <= record["parameters"] <= learnt + 10


def test_the_record_takes_distances_and_likelihood_from_what_eval_measured(trial_folder):
    assert trial_record(trial_folder)["fd_final"] is None
    words = ("--run", str(trial_folder), "--split", "valid")
    done = run_module("eval", "fid", *words, "--from", "q_hat", "--mixture", "4", "--n", "100")
    assert done.returncode == 0, done.stderr
    record = trial_record(trial_folder)
    assert f"{record['fd_final']:.4f}" in done.stdout
    assert (record["fd_stage1"], record["fd_reconstruction"]) == (None, None)
    assert headline(trial_folder)["fd"] == record["fd_final"]


def test_a_failure_by_its_own_configuration_outlives_any_other_outcome(trial_folder, tmp_path):
    folder = tmp_path / TRIAL.name
    shutil.copytree(trial_folder, folder)
    assert trial_record(folder)["status"] == "unfinished"
    note_outcome(folder, "finished", "")
    assert trial_record(folder)["status"] == "finished"
    note_failure(folder, "out of memory")
    assert (trial_record(folder)["status"], trial_record(folder)["reason"]) == ("failed", "out of memory")


def test_memory_that_cannot_be_had_is_the_configurations_fault_and_a_lost_connection_is_not():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert own_fault(caught.value).startswith("out of memory: ")
    assert own_fault(InputError("model.norm: wrong")) == "model.norm: wrong"
    assert own_fault(ConnectionError("reset by peer")) == ""
    assert own_fault(RuntimeError("Connection closed by peer")) == ""


def test_a_listener_hears_every_event_that_the_run_logs_in_its_order(tmp_path, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    heard = []
    run = train(sweep.trainer_config("one", 0, {}), lambda kind, images, facts: heard.append((kind, images)))
    assert heard == [(event["event"], event["images"]) for event in read_events(run)]
    assert {"train", "valid", "stage_end", "stage_start"} <= {kind for kind, _ in heard}


def test_the_exported_best_configuration_is_trained_by_the_trainer_as_it_is(tmp_path, trial_folder, digits_shards):
    note_outcome(trial_folder, "finished", "")
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, fields={"stage1.max_epochs": 0.1, "stage2.max_epochs": 0}))
    path = tmp_path / "best.yaml"
    export_best(sweep, ranking([trial_record(trial_folder)], "elbo"), path)
    done = run_module("trainer", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "runs" / "best-of-sweep").latent_dim == 2
    with pytest.raises(InputError, match="no trial was trained to its end"):
        export_best(sweep, [], path)


def test_an_exported_configuration_names_folders_from_where_it_was_written(
    tmp_path, trial_folder, digits_shards, monkeypatch
):
    note_outcome(trial_folder, "finished", "")
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    export_best(sweep, ranking([trial_record(trial_folder)], "elbo"), tmp_path / "best.yaml")
    assert load(tmp_path / "best.yaml").runs == "runs"
