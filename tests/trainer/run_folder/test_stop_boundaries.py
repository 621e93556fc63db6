"""A stop between any two steps of a run: what is kept, and that what was interrupted is done again on resume."""

import os
import signal
import time

import psutil
import pytest
import torch
from support.forked import Job
from support.training import events, train, weights, words

from trainer import preemption
from trainer.__main__ import read_command_line
from trainer.loop import train as run_training
from trainer.networks.model import SigmaVAE
from trainer.run_folder.checkpoint import complete_checkpoints, read_state
from trainer.run_folder.restore import checkpoint_of

FIELDS = {
    "stage1__max_epochs": 0.2,
    "stage2__max_epochs": 0.1,
    "stage1__check_images": 120,
    "log__every_images": 30,
    "checkpoint__every_images": 90,
}


@pytest.fixture(scope="module")
def whole(digits_shards, tmp_path_factory):
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "whole", **FIELDS)


@pytest.fixture
def config(digits_shards, tmp_path):
    return read_command_line(words(digits_shards, tmp_path, "run", **FIELDS)).config


@pytest.fixture
def no_grace(monkeypatch):
    """Passes are left at once, as a pass of minutes is left after some seconds."""
    monkeypatch.setattr(preemption, "_GRACE_SECONDS", 0.0)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def stop_at(kind, stage=1, images=0, stop=terminate):
    """A listener that calls `stop` at the first event of a kind at this stage from these images on."""
    done = []

    def listener(found, at, facts):
        if not done and (found, facts.get("stage")) == (kind, stage) and at >= images:
            done.append(at)
            stop()

    return listener


def finish(config, whole):
    """Resumes to the end, and checks that all is as in the uninterrupted run."""
    run = run_training(config)
    found, expected = weights(run), weights(whole)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for kind in ("train", "valid", "stage_start", "stage_end"):
        assert [event["images"] for event in events(run, kind)] == [event["images"] for event in events(whole, kind)]
    numbers = ("elbo", "sigma2", "active_dimensions")
    for ours, theirs in zip(events(run, "stage_end"), events(whole, "stage_end"), strict=True):
        assert [ours[name] for name in numbers] == [theirs[name] for name in numbers]
    assert read_state(checkpoint_of(run, "stage1")).stages.stage == 1
    return run


def newest_state(run):
    return read_state(complete_checkpoints(run)[-1])


def test_a_stop_with_the_last_update_of_stage_1_keeps_its_end(config, whole):
    end = next(event["images"] for event in events(whole, "stage_end"))
    run = run_training(config, stop_at("train", images=end))
    assert newest_state(run).images == end
    assert read_state(checkpoint_of(run, "stage1")).stages.ended == "cap"
    assert len({folder.name for folder in complete_checkpoints(run)}) == len(complete_checkpoints(run))
    finish(config, whole)


def test_a_stop_in_a_held_out_measurement_is_kept_and_the_measurement_made_again(config, whole, no_grace):
    run = run_training(config, stop_at("train", images=120))
    assert newest_state(run).images == 120
    assert newest_state(run).stages.check_due
    assert 120 not in [event["images"] for event in events(run, "valid")]
    finish(config, whole)


@pytest.mark.parametrize("way", ["SIGTERM", "STOP"])
def test_a_stop_in_the_exact_variance_pass_is_kept_and_the_pass_made_again(way, config, whole, no_grace, monkeypatch):
    monkeypatch.setattr(preemption, "_SECONDS_BETWEEN_LOOKS", 0.0)
    end = next(event["images"] for event in events(whole, "stage_end"))
    stop = config.folder / "STOP"
    run = run_training(config, stop_at("valid", images=end, stop=terminate if way == "SIGTERM" else stop.touch))
    stop.unlink(missing_ok=True)
    assert events(run, "stop")[0]["reason"] == way
    assert newest_state(run).images == end
    assert newest_state(run).stages.check_due
    assert not newest_state(run).stages.ended
    finish(config, whole)


def test_a_stop_in_the_measurement_after_the_exact_pass_leaves_the_weights_of_before(
    config, whole, no_grace, monkeypatch
):
    original = SigmaVAE.freeze_variance

    def then_stop(self, variance):
        original(self, variance)
        terminate()

    with monkeypatch.context() as patch:
        patch.setattr(SigmaVAE, "freeze_variance", then_stop)
        run = run_training(config)
    assert newest_state(run).stages.check_due
    assert not events(run, "stage_end")
    finish(config, whole)


def test_a_stop_at_the_switch_goes_on_from_the_end_of_stage_1(config, whole, no_grace):
    run = run_training(config, stop_at("stage_end"))
    assert newest_state(run).stages.ended == "cap"
    assert not events(run, "stage_start")
    finish(config, whole)


def test_a_stop_in_the_last_measurement_of_all_is_kept(config, whole, no_grace):
    end = events(whole, "stage_end")[-1]["images"]
    run = run_training(config, stop_at("train", stage=2, images=end))
    assert newest_state(run).stages.check_due
    assert (run / "requeue").read_text() == "yes SIGTERM\n"
    finish(config, whole)


@pytest.fixture
def interruptible():
    """SIGINT as a terminal's process has it; a shell's background jobs, as these tests may be, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_saves_and_then_interrupts_the_caller(config, whole):
    def press(kind, images, facts):
        if kind == "train" and images == 60:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(config, press)
    assert newest_state(config.folder).images == 60
    assert (config.folder / "requeue").read_text() == "no SIGINT\n"
    finish(config, whole)


def wait_until(happened, seconds=600):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_signal_while_the_others_have_not_come_ends_a_process_at_once_with_one_line(digits_shards, tmp_path):
    job = Job.start(words(digits_shards, tmp_path, "run"), 2, tmp_path, only=[0])
    at_work = psutil.Process(job.processes[0].pid)
    wait_until(lambda: any(one.status == psutil.CONN_LISTEN for one in at_work.net_connections()))
    job.kill(signal.SIGTERM, [0])
    assert job.wait(60) == [128 + signal.SIGTERM]  # of two minutes and more for which it would wait
    assert job.said().splitlines()[-1].startswith("stopped by SIGTERM before the first update")
    assert "Traceback" not in job.said()


def test_a_second_training_in_one_run_folder_is_refused_and_may_take_it_over(digits_shards, tmp_path):
    arguments = words(digits_shards, tmp_path, "run", stage1__max_epochs=10_000)
    (tmp_path / "a").mkdir()
    first = Job.start(arguments, 1, tmp_path / "a")
    run = tmp_path / "run"
    wait_until(lambda: complete_checkpoints(run))

    (tmp_path / "b").mkdir()
    second = Job.start(arguments, 1, tmp_path / "b")
    assert second.wait(600) == [2]
    (line,) = second.said().strip().splitlines()
    assert f"in use by process {first.processes[0].pid} on " in line
    assert "--steal-lock" in line

    third = Job.start([*arguments, "--steal-lock"], 1, tmp_path / "b")
    assert first.wait(600) == [2]
    assert first.said().strip().splitlines()[-1].startswith(f"error: {run}: taken over by process")
    assert "Traceback" not in first.said()
    wait_until(lambda: events(run, "resume"))
    third.kill(signal.SIGTERM, [0])
    assert third.wait(600) == [0]
    images = [event["images"] for event in events(run, "train")]
    assert images == sorted(set(images))
    assert not list(run.glob(".lease*"))


def test_of_copies_that_a_launcher_starts_apart_one_trains_and_the_others_say_so(digits_shards, tmp_path):
    jobs = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        jobs.append(Job.start(words(digits_shards, tmp_path, "run"), 1, tmp_path / str(number)))
    codes = [job.wait(600)[0] for job in jobs]
    assert sorted(codes) in ([0, 2, 2], [0, 0, 2], [0, 0, 0])  # one that starts late finds the run complete
    for code, job in zip(codes, jobs, strict=True):
        assert ("in use by" in job.said()) == (code == 2)
        assert "Traceback" not in job.said()
    assert [event["stage"] for event in events(tmp_path / "run", "stage_end")] == [1, 2]
