"""What is read of a trial from its run folder, and which errors count as the configuration's fault."""

import dataclasses
import json
import shutil

import pytest
import torch
from support.running import run_module
from support.sweep_cases import record as made_record
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError, MachineFault
from data_shards.io.lease import LeaseHeld, lease
from eval.distance.comparison import measure_distance
from eval.measurements.likelihood import measure_likelihood
from eval.questions import DistanceQuestion, LikelihoodQuestion
from eval.run import load_run
from trainer.loop import train
from trainer.process_group import single
from trainer.run_folder.log import read_events
from trainer.run_folder.restore import load_model
from tune.search.trials import Trial
from tune.sweep_config import MeasureConfig, read_sweep
from tune.trial.folder import (
    TrialOutcome,
    load_attempts,
    load_outcome,
    load_trial,
    measure_key,
    reopen,
    save_attempt,
    save_failure,
    save_outcome,
    save_trial,
)
from tune.trial.record import reported_metrics, trial_record
from tune.trial.weights import KeptWeights
from tune.trial.worker import configuration_fault

MEASURE = MeasureConfig(images=0)


def test_a_run_folder_is_named_after_its_trials_configuration_and_seed_and_says_which_trial_it_is(trial, trial_folder):
    assert load_trial(trial_folder) == trial
    assert trial_folder.name == trial.name == "search-003-seed1"


def test_the_record_has_size_time_and_the_end_of_each_stage_as_the_run_logged_them(trial_folder):
    record, events = trial_record(trial_folder, MEASURE), read_events(trial_folder)
    first, second = (event for event in events if event["event"] == "stage_end")
    assert (record.stage1.reason, record.stage1.images) == (first["reason"], first["stage_images"])
    assert (record.stage2.sigma2, record.stage2.kl) == (second["sigma2"], second["kl"])
    assert record.images == events[-1]["images"]
    assert record.stage1.seconds + record.stage2.seconds == pytest.approx(record.seconds)
    assert record.final_elbo == record.checks[-1].elbo == second["elbo_at_closed_form"]
    learnt = sum(parameter.numel() for parameter in load_model(trial_folder).parameters())
    assert learnt <= record.parameters <= learnt + 10


def test_a_damaged_checkpoint_costs_the_record_its_size_only(trial_folder, tmp_path):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    for path in folder.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert trial_record(folder, MEASURE) == dataclasses.replace(trial_record(trial_folder, MEASURE), parameters=None)


def test_the_early_value_is_that_of_the_first_check_that_saw_enough_images():
    one = made_record(1)
    assert (one.elbo_at(500), one.elbo_at(501), one.elbo_at(2001)) == (1.0, 2.0, None)


def test_the_record_has_distances_and_likelihood_as_eval_measured_them(trial_folder, tmp_path):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    measure = MeasureConfig(images=100, mixture=4, also=("kernel",))
    assert trial_record(folder, measure).fd_final is None
    words = ("--run", str(folder), "--split", "valid")
    done = run_module("eval", "fid", *words, "--from", "q_hat", "--mixture", "4", "--n", "100", "--also", "kernel")
    assert done.returncode == 0, done.stderr
    record = trial_record(folder, measure)
    assert f"{record.fd_final:.4f}" in done.stdout
    assert list(record.further) == ["kernel_distance"]
    assert (record.fd_stage1, record.fd_reconstruction) == (None, None)
    assert reported_metrics(folder, measure)["fd"] == record.fd_final


def test_a_record_has_only_what_was_measured_as_the_sweep_measures_now_however_old_it_is(trial_folder, tmp_path):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    run, values = load_run(folder), []
    for n in (64, 80):
        measure_distance(run, DistanceQuestion(source="prior", n=n, split="valid"), single())
        values.append(trial_record(folder, MeasureConfig(images=n, mixture=0)).fd_final)
    measure_likelihood(run, LikelihoodQuestion(images=5, samples=2, mixture=0, split="valid"), single())
    # The newest result is of 80 images; the sweep went back to 64, which was measured before.
    measure = MeasureConfig(images=64, mixture=0, likelihood_images=5, likelihood_samples=2)
    record = trial_record(folder, measure)
    assert (record.fd_final, values[0] == values[1], isinstance(record.iwae_final, float)) == (values[0], False, True)
    for changed in ({"images": 70}, {"split": "test"}, {"mixture": 4}, {"images": 0}):
        assert trial_record(folder, dataclasses.replace(measure, **changed)).fd_final is None
    for changed in ({"likelihood_images": 6}, {"likelihood_samples": 3}, {"split": "test"}, {"mixture": 4}):
        assert trial_record(folder, dataclasses.replace(measure, **changed)).iwae_final is None


def test_a_failure_because_of_its_own_configuration_comes_before_any_other_outcome(trial_folder, tmp_path):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    assert trial_record(folder, MEASURE).status == "unfinished"
    save_outcome(folder, TrialOutcome(status="finished"))
    assert trial_record(folder, MEASURE).status == "finished"
    save_failure(folder, "out of memory")
    assert (trial_record(folder, MEASURE).status, trial_record(folder, MEASURE).reason) == ("failed", "out of memory")


def test_faults_of_machines_are_not_the_configurations(tmp_path):
    full = MachineFault("/x: the disk is full")
    assert configuration_fault(full) == ""
    (tmp_path / "run").mkdir()
    with lease(tmp_path / "run"), pytest.raises(LeaseHeld) as held, lease(tmp_path / "run"):
        pass
    assert configuration_fault(held.value) == ""
    others_took_it = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")
    assert configuration_fault(others_took_it) == ""


@pytest.mark.parametrize(
    ("outcome", "measure", "again"),
    [
        (TrialOutcome(status="finished", measure=measure_key(MEASURE)), MEASURE, False),
        (TrialOutcome(status="finished", measure=measure_key(MEASURE)), MeasureConfig(images=60), True),
        (TrialOutcome(status="finished"), MEASURE, False),  # of an earlier version, which measured the same
        (TrialOutcome(status="stopped", reason="asha"), MeasureConfig(images=60), False),
        (TrialOutcome(status="failed", reason="the disk was full", again=True), MEASURE, True),
        (TrialOutcome(status="failed", reason="not finite"), MeasureConfig(images=60), False),
    ],
)
def test_a_trial_is_reopened_after_a_fault_of_a_machine_or_for_another_measure(
    trial_folder, tmp_path, outcome, measure, again
):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    save_outcome(folder, outcome)
    assert reopen(folder, measure, MEASURE) == again
    assert load_outcome(folder) == (TrialOutcome(status="unfinished") if again else outcome)


def test_a_trial_whose_measuring_failed_is_measured_again_under_other_settings_alone(trial_folder, tmp_path):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    save_failure(folder, "measure.mixture: too many", MEASURE)
    save_outcome(folder, TrialOutcome(status="failed", reason="measure.mixture: too many"))
    assert not reopen(folder, MEASURE, MEASURE)
    assert reopen(folder, MeasureConfig(images=60), MEASURE)
    assert load_outcome(folder).status == "unfinished"


@pytest.mark.parametrize("name", ["trial.json", "outcome.json", "failure.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_file_of_a_trial_is_one_line_that_names_it(trial_folder, tmp_path, name, content):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: is damaged; restore it"):
        trial_record(folder, MEASURE)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("outcome.json", {"status": "done"}),
        ("outcome.json", {"measure": {"images": 100}}),
        ("trial.json", {"number": "1"}),
        ("trial.json", {"fields": None}),
    ],
)
def test_a_value_of_another_kind_is_damage_too(trial_folder, tmp_path, name, change):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    save_outcome(folder, TrialOutcome(status="finished"))
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    with pytest.raises(InputError, match=f"{name}: is damaged; restore it"):
        trial_record(folder, MEASURE)


def test_lines_of_attempts_that_are_none_are_passed_over(tmp_path):
    save_attempt(tmp_path)
    with (tmp_path / "attempts.jsonl").open("ab") as file:
        file.write(b'null\n7\n"turn"\n\0\0\xff\n{"at": "2026')
    assert len(load_attempts(tmp_path)) == 1


@pytest.mark.parametrize("measured_with", ["{", 7, "[]"])
def test_a_failure_that_names_no_measure_is_measured_again(trial_folder, tmp_path, measured_with):
    folder = tmp_path / trial_folder.name
    shutil.copytree(trial_folder, folder)
    (folder / "failure.json").write_text(json.dumps({"reason": "measuring failed", "measure": measured_with}))
    assert reopen(folder, MEASURE, MEASURE)


def test_the_checkpoints_of_losers_are_deleted_and_their_records_stay(trial_folder, tmp_path, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, keep_weights=1))
    names = [f"search-00{number}-seed1" for number in range(3)]
    for number, name in enumerate(names):
        folder = sweep.trials_folder / name
        shutil.copytree(trial_folder, folder)
        save_trial(folder, Trial(phase="search", number=number, seed=1, fields={}))
    (sweep.trials_folder / names[0] / "checkpoints" / "mine.txt").write_text("of someone else")
    for name, status in zip(names, ("stopped", "finished", "finished"), strict=True):
        save_outcome(sweep.trials_folder / name, TrialOutcome(status=status))
    before = [trial_record(sweep.trials_folder / name, MEASURE) for name in names]
    kept = KeptWeights(sweep, [])
    for name in names:
        kept.ended(name)
    left = [any((sweep.trials_folder / name).glob("checkpoints/*/COMPLETE")) for name in names]
    assert left == [False, True, False]  # of two that are as good the first stays
    assert [trial_record(sweep.trials_folder / name, MEASURE) for name in names] == before
    assert (sweep.trials_folder / names[0] / "checkpoints" / "mine.txt").exists()


def test_too_little_memory_is_the_configurations_fault_and_a_lost_connection_is_not():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert configuration_fault(caught.value).startswith("out of memory: ")
    assert configuration_fault(InputError("wrong", parameter="model.norm")) == "model.norm: wrong"
    assert configuration_fault(ConnectionError("reset by peer")) == ""
    assert configuration_fault(RuntimeError("Connection closed by peer")) == ""


def test_a_listener_gets_every_event_that_the_run_logs_in_order(tmp_path, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    received = []
    run = train(sweep.trainer_config("one", 0, {}), lambda kind, images, facts: received.append((kind, images)))
    assert received == [(event["event"], event["images"]) for event in read_events(run)]
    assert {"train", "valid", "stage_end", "stage_start"} <= {kind for kind, _ in received}
