"""A trial of a population takes over another one's weights, log and fields, whenever a process is killed meanwhile."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from support.sweep_cases import write_sweep

from trainer.config.config import Config, load_config
from trainer.loop import train
from trainer.run_folder.checkpoint import complete_checkpoints, read_model
from trainer.run_folder.log import read_events
from tune.search.trials import Trial
from tune.sweep_config import MeasureConfig, SweepConfig, read_sweep
from tune.trial.folder import save_trial
from tune.trial.record import trial_record
from tune.trial.takeover import LEARNING_RATE, Decision, present_fields, take_over, takeovers

GOOD, POOR = (Trial(phase="search", number=n, seed=0, fields={LEARNING_RATE: 10.0 ** -(n + 3)}) for n in (0, 1))
DECISION = Decision(number=1, source=GOOD.name, learning_rate=0.0008, how="* 0.8", progress=11.0)

FIELDS = {"stage1.max_epochs": 1, "stage2.max_epochs": 0, "checkpoint.every_images": 100}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits_shards) -> SweepConfig:
    """Two trials that stand in the middle of stage 1, the good one further than the poor one."""
    folder = tmp_path_factory.mktemp("population")
    sweep = read_sweep(write_sweep(folder, digits_shards, fields={"data.valid_images": 50, "log.every_images": 100}))
    for trial, images in ((GOOD, 700), (POOR, 350)):
        save_trial(sweep.trials_folder / trial.name, trial)
        train_until(sweep.trainer_config(trial.name, 0, trial.fields | FIELDS), images)
    return sweep


def train_until(config: Config, images: int) -> None:
    """Trains, and stops where an event has come after so many images."""
    seen = [0]
    train(config, lambda _, at, __: seen.append(at), asked_to_stop=lambda: seen[-1] >= images)


@pytest.fixture
def sweep(trained, tmp_path) -> SweepConfig:
    shutil.copytree(trained.runs, tmp_path / "runs")
    return dataclasses.replace(trained, runs=str(tmp_path / "runs"))


def folders(sweep: SweepConfig) -> tuple[Path, Path]:
    good, poor = (sweep.trials_folder / trial.name for trial in (GOOD, POOR))
    return good, poor


def names(run: Path) -> list[str]:
    return [path.name for path in complete_checkpoints(run)]


def assert_taken_over(sweep: SweepConfig) -> None:
    good, poor = folders(sweep)
    assert names(poor) == names(good)
    weights, expected = (read_model(complete_checkpoints(run)[-1]) for run in (poor, good))
    assert all(weights[name].equal(value) for name, value in expected.items())
    assert read_events(poor) == read_events(good)
    assert load_config(poor).folder.name == POOR.name
    assert present_fields(poor) == {LEARNING_RATE: 0.0008}
    assert not (poor / ".takeover").exists()


def test_a_takeover_brings_the_weights_and_the_log_and_keeps_what_the_trial_was(sweep):
    good, poor = folders(sweep)
    before = read_events(poor)
    take_over(poor, DECISION)
    assert_taken_over(sweep)
    assert (poor / "takeovers" / "001" / "metrics.jsonl").read_text().count("\n") == len(before)
    assert complete_checkpoints(poor / "takeovers" / "001") == []
    (done,) = takeovers(poor)
    assert (done.source, done.before, done.learning_rate, done.how) == (GOOD.name, 0.001, 0.0008, "* 0.8")
    assert done.given_up == before[-1]["images"] > 0
    assert done.images == read_events(good)[-1]["images"]
    assert trial_record(poor, MeasureConfig()).takeovers == (done,)


def test_training_goes_on_from_there_with_the_other_learning_rate_and_its_log_says_so(sweep):
    _, poor = folders(sweep)
    take_over(poor, DECISION)
    images = read_events(poor)[-1]["images"]
    train(sweep.trainer_config(POOR.name, 0, present_fields(poor) | FIELDS), allow_change=True)
    (resumed,) = [event for event in read_events(poor) if event["event"] == "resume"]
    assert resumed["images"] == images
    assert load_config(poor).optimiser.learning_rate == 0.0008
    assert any("optimiser.learning_rate: 0.001 -> 0.0008" in str(event) for event in read_events(poor))


def test_of_a_trial_that_is_complete_the_learning_rate_is_kept_as_no_other_would_be_used(sweep):
    good, poor = folders(sweep)
    train(sweep.trainer_config(GOOD.name, 0, GOOD.fields | FIELDS))
    take_over(poor, DECISION)
    assert present_fields(poor) == GOOD.fields
    assert takeovers(poor)[0].how == "kept, as that trial is complete"
    train(sweep.trainer_config(POOR.name, 0, present_fields(poor) | FIELDS), allow_change=True)
    assert names(poor) == names(good)


def test_a_decision_is_carried_out_once(sweep):
    _, poor = folders(sweep)
    for _ in range(2):  # the process was lost and is started again
        take_over(poor, DECISION)
    assert len(takeovers(poor)) == 1


@pytest.mark.parametrize("renames", range(6))
def test_what_a_killed_process_has_left_is_done_at_the_next_start(sweep, monkeypatch, renames):
    _, poor = folders(sweep)
    real, done = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        if ".takeover" in str(self) or "takeovers" in str(target):
            if len(done) == renames:
                raise KeyboardInterrupt
            done.append(self)
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            take_over(poor, DECISION)
    take_over(poor, None)
    assert_taken_over(sweep)
    assert len(takeovers(poor)) == 1


def test_without_a_checkpoint_of_the_other_trial_a_trial_goes_on_by_itself(sweep):
    good, poor = folders(sweep)
    shutil.rmtree(good / "checkpoints")
    before = names(poor)
    take_over(poor, DECISION)
    assert names(poor) == before
    assert takeovers(poor) == ()
