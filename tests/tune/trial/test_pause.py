"""Pausing a sweep: running trials save and let go of their folders, and go on when the sweep does."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from support.running import ROOT

from trainer.run_folder.log import read_events
from tune.trial.pause import EXIT_CODE, is_paused, pause, resume, wait_while_paused

ENDLESS = ["--stage1.max_epochs=1000", "--stage1.eps=0", "--checkpoint.every_images=1000000000"]
SMALL = ["--model.encoder_channels=[4]", "--model.decoder_channels=[4,4]", "--model.hidden=8", "--data.workers=0"]


@pytest.fixture
def trials(tmp_path):
    """A trial that has not begun, and a folder of something else."""
    for name in ("waiting", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "waiting" / "trial.json").write_text("{}")
    return tmp_path


@pytest.fixture
def training(trials, digits_shards):
    """A trial that trains, in a process of its own as under Ray."""
    words = ["--config", "trainer/configs/fashion_mnist.yaml", f"--data.shards={digits_shards}", f"--runs={trials}"]
    command = [sys.executable, "-m", "trainer", *words, "--name=running", "--device=cpu", "--log.every_images=1000"]
    process = subprocess.Popen([*command, *ENDLESS, *SMALL], cwd=ROOT, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 600
    while not any(event["event"] == "train" for event in read_events(trials / "running")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    (trials / "running" / "trial.json").write_text("{}")
    yield process
    process.kill()
    process.wait()


def test_a_trial_that_trains_saves_and_one_that_waits_is_left_alone(trials, training):
    assert pause(trials, seconds=300) == 1
    assert training.wait(300) == 0
    stops = [event for event in read_events(trials / "running") if event["event"] == "stop"]
    assert [event["reason"] for event in stops] == ["STOP"]
    saved = sorted(path.parent.name for path in (trials / "running" / "checkpoints").glob("*/COMPLETE"))
    assert int(saved[-1]) == stops[0]["images"] > 0
    assert not (trials / "waiting" / "STOP").exists()
    assert is_paused(trials / "running")
    resume(trials)
    assert not (trials / "running" / "STOP").exists()


def test_a_stop_that_a_person_asked_for_is_kept(trials):
    (trials / "waiting" / "STOP").touch()
    assert not is_paused(trials / "waiting")
    resume(trials)
    assert (trials / "waiting" / "STOP").exists()
    wait_while_paused(trials / "waiting")  # returns


def test_a_pipe_that_a_person_calls_stop_is_not_waited_for(trials):
    os.mkfifo(trials / "waiting" / "STOP")
    assert not is_paused(trials / "waiting")
    resume(trials)
    assert (trials / "waiting" / "STOP").is_fifo()


def test_a_process_of_a_paused_trial_waits_until_the_sweep_goes_on(trials):
    (trials / "waiting" / ".lease.json").touch()
    assert pause(trials, seconds=0) == 0
    waiting = threading.Thread(target=wait_while_paused, args=(trials / "waiting",), daemon=True)
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive()
    resume(trials)
    waiting.join(300)
    assert not waiting.is_alive()


SIGNALS = {signal.SIGUSR2: EXIT_CODE, signal.SIGINT: 130, signal.SIGTERM: 130}


def saving_command(trials, seconds: float, same_seconds: float = 1.0) -> subprocess.Popen:
    """A command that waits, and lets trials save for so many seconds at a signal.

    same_seconds: within which a further signal is the first one again
    """
    script = textwrap.dedent(
        f"""
        import pathlib, sys, time
        from tune.trial import pause
        pause.SECONDS = dict.fromkeys(pause.SECONDS, {seconds})
        pause._SAME_SECONDS = {same_seconds}
        try:
            with pause.saving_at_signals(pathlib.Path({str(trials)!r})):
                print("ready", flush=True)
                time.sleep(600)
        except KeyboardInterrupt:
            sys.exit(130)
        """
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes)  # type: ignore[call-overload]
    assert command.stdout.readline() == "ready\n"
    return command


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_end_a_command_with_their_exit_code_when_all_have_saved(trials, number):
    command = saving_command(trials, seconds=5)
    os.kill(command.pid, number)
    assert command.wait(300) == SIGNALS[number]
    assert command.stdout.read().startswith("0 running trials have saved")
    assert command.stderr.read().startswith(f"{number.name}: running trials save, for at most 5 s")
    assert json.loads((trials / "waiting" / "trial.json").read_text()) == {}


def test_a_second_interruption_ends_a_command_at_once(trials):
    (trials / "waiting" / ".lease.json").touch()  # a trial that never saves
    command = saving_command(trials, seconds=1000, same_seconds=0.0)
    os.kill(command.pid, signal.SIGINT)
    assert command.stderr.readline().startswith("SIGINT: running trials save")
    os.kill(command.pid, signal.SIGINT)
    assert command.wait(300) == 130


def test_the_same_interruption_sent_twice_does_not_end_a_command_before_the_trials_have_saved(trials):
    (trials / "waiting" / ".lease.json").touch()
    command = saving_command(trials, seconds=3, same_seconds=1000.0)
    os.kill(command.pid, signal.SIGTERM)
    assert command.stderr.readline().startswith("SIGTERM: running trials save")
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait(300) == 130
    assert "running trials have saved" in command.stdout.read()
