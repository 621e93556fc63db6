"""A trial that takes turns saves before it reports at a rung, and is otherwise what it would be without."""

import dataclasses

import pytest
from support.sweep_cases import write_sweep

from trainer.loop import train
from trainer.run_folder.checkpoint import complete_checkpoints, read_model
from trainer.run_folder.log import read_events
from tune.search.stopping import budget, rungs
from tune.search.trials import Trial
from tune.sweep_config import StoppingConfig, read_sweep
from tune.trial.folder import load_attempts, save_attempt, save_trial, save_turn
from tune.trial.worker import Task, carry_out

STOPPING = StoppingConfig(scheduler="halving", first_percent=20, min_images=0)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, digits_shards):
    fields = {
        "stage1.max_epochs": 0.5,
        "stage2.max_epochs": 0.5,
        "stage1.check_images": 100,
        "stage2.check_images": 100,
    }
    folder = tmp_path_factory.mktemp("turns")
    return read_sweep(write_sweep(folder, digits_shards, fields=fields | {"data.valid_images": 50}))


def task(sweep, number: int) -> Task:
    trial = Trial(phase="search", number=number, seed=0, fields={"model.latent_dim": 2})
    save_trial(sweep.trials_folder / trial.name, trial)
    return Task(
        config=dataclasses.replace(sweep.trainer_config(trial.name, 0, trial.fields), device="cpu"),
        measure=sweep.measure,
        budget=budget(sweep, 1397, trial.fields),
        rungs=rungs(STOPPING),
        min_images=0,
        takes_turns=True,
    )


def saved(run) -> int:
    return int(complete_checkpoints(run)[-1].name)


def test_it_has_saved_what_it_reports_and_ends_in_the_weights_of_a_training_without_turns(sweep):
    asked = task(sweep, 0)
    reports, images_saved = [], []

    def report(facts):
        reports.append(facts)
        if "last" in facts:
            images_saved.append(saved(asked.config.folder))

    carry_out(asked, report)
    assert [one["progress"] for one in reports] == [20, 40, 80, 100.0]
    assert all(at >= one["images"] for at, one in zip(images_saved, reports, strict=False))
    assert not (asked.config.folder / "requeue").exists()
    plain = dataclasses.replace(asked.config, name="plain")
    train(plain)
    ours, theirs = (read_model(complete_checkpoints(run)[-1]) for run in (asked.config.folder, plain.folder))
    assert all(ours[name].equal(value) for name, value in theirs.items())
    checks = [
        [(event["images"], event["elbo_at_closed_form"]) for event in read_events(run) if event["event"] == "valid"]
        for run in (asked.config.folder, plain.folder)
    ]
    assert checks[0] == checks[1]


def test_one_that_has_to_wait_goes_on_at_its_next_turn_from_there_and_says_where_it_stands(sweep):
    asked = task(sweep, 1)
    reports = []

    def wait_at_40(facts):
        reports.append(facts)
        if facts["progress"] == 40 and not facts.get("settled"):
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        carry_out(asked, wait_at_40)
    stood = saved(asked.config.folder)
    carry_out(asked, wait_at_40)
    assert [(one["progress"], one.get("settled")) for one in reports] == [
        *((20, False), (40, False)),
        *((20, True), (40, True), (80, False), (100.0, None)),
    ]
    assert [one["last"] for one in reports[2:4]] == [False, True]
    assert [event["images"] for event in read_events(asked.config.folder) if event["event"] == "resume"][1] == stood


def test_a_start_after_a_turn_is_no_retry(tmp_path):
    save_attempt(tmp_path)
    save_turn(tmp_path)
    save_attempt(tmp_path)
    assert len(load_attempts(tmp_path)) == 1
    save_attempt(tmp_path)  # its process was lost
    assert len(load_attempts(tmp_path)) == 2
