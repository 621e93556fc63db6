"""A signal to all processes of a sweep, as a terminal, `timeout` and systemd send it: the trials have saved first."""

import os
import signal
import time

import psutil
import pytest
from support.sweep_cases import write_sweep
from test_sweep import by_name, run_tune
from test_sweep_faults import LONG, descendants, end, resumed_from, start, wait_for

from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.log import read_events
from tune.sweep_config import read_sweep
from tune.trial.pause import EXIT_CODE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("number", "before", "code"),
    [
        (signal.SIGTERM, (), 130),
        (signal.SIGINT, (), 130),
        (signal.SIGUSR2, (), EXIT_CODE),
        # Sends what it receives to its command, and then to all processes.
        (signal.SIGTERM, ("timeout", "3600"), 130),
    ],
)
def test_a_signal_to_all_processes_of_a_sweep_lets_its_trials_save_and_leaves_no_process(
    tmp_path, digits_shards, number, before, code
):
    space = {"model.latent_dim": {"choice": [2]}}
    fields = LONG | {"checkpoint.every_images": 10**6}  # one at the end of stage 1, and none before the end
    path = write_sweep(tmp_path, digits_shards, fields=fields, space=space)
    run = read_sweep(path).trials_folder / "search-000-seed0"
    command = start(path, *before)
    try:
        wait_for(lambda: complete_checkpoints(run))
        processes = psutil.Process(command.pid).children(recursive=True)
        assert {"gcs_server", "raylet"} <= {process.name() for process in processes}
        (trial,) = descendants(command, "ray::ImplicitFunc")
        trial.suspend()  # it cannot save at once, as in the middle of a long step
        if before:
            command.send_signal(number)
        else:
            os.killpg(command.pid, number)
        time.sleep(3)
        trial.resume()
        assert command.wait(60) == code
        wait_for(lambda: not any(map(is_alive, processes)), 10)
    finally:
        end(command)
    log = path.with_suffix(".log").read_text()
    assert log.count("1 running trials have saved; the same command continues") == 1
    assert "GCS" not in log
    (saved,) = [event["images"] for event in read_events(run) if event["event"] == "stop"]
    done = run_tune(path)
    assert done.returncode == 0, done.stderr
    (record,) = by_name(path).values()
    assert record.status == "finished"
    assert resumed_from(run) == [saved]
