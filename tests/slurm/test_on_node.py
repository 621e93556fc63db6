"""slurm/on_node.sh: how Slurm's signals reach the processes that torchrun starts."""

import signal
import subprocess
import sys
import time

import pytest
from support.running import ROOT

pytestmark = pytest.mark.slurm

WORKER = """
import pathlib, signal, sys, time
stopped = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda number, frame: stopped.append(signal.Signals(number).name))
pathlib.Path(sys.argv[1]).write_text("ready")
while not stopped:
    time.sleep(0.05)
pathlib.Path(sys.argv[1]).write_text(stopped[0])
"""


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_to_the_task_alone_reaches_the_workers_of_torchrun(tmp_path, number):
    worker, noted = tmp_path / "worker.py", tmp_path / "noted"
    worker.write_text(WORKER)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--signals-to-handle=SIGINT"]
    task = subprocess.Popen([ROOT / "slurm" / "on_node.sh", *torchrun, str(worker), str(noted)])
    try:
        end = time.monotonic() + 60
        while not noted.exists() and time.monotonic() < end:
            time.sleep(0.1)
        task.send_signal(number)  # as Slurm does where it follows processes by cgroups
        assert task.wait(60) == 0
    finally:
        task.kill()
    assert noted.read_text() == number.name


def test_the_exit_code_is_that_of_the_launcher():
    done = subprocess.run([ROOT / "slurm" / "on_node.sh", "bash", "-c", "exit 7"], check=False)
    assert done.returncode == 7
