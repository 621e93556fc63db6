"""What a sweep costs beside its trainings: seconds and memory of 10, 100 and 1,000 trials that train for a moment.

    PYTHONPATH=tests python tests/benchmarks/trivial_trials.py 10 100 1000

Each trains 50 images of scikit-learn's digits in either stage, without measuring. The memory is the sum over the
command and all of Ray's processes of what is theirs alone, at its largest.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from support.running import ROOT, run_module, write_digits
from support.sweep_cases import write_sweep

from data_shards.io.tables import Table

_SHORT = {f"stage{stage}.{name}": value for stage in (1, 2) for name, value in (("max_epochs", 0.03),)}


def private_bytes(command: psutil.Process) -> int:
    """Memory of a process and its descendants that they share with no other."""
    total = 0
    for process in [command, *command.children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total


def measured(folder: Path, shards: Path, trials: int) -> tuple[str, ...]:
    """A row of the table."""
    folder.mkdir()
    path = write_sweep(
        folder,
        shards,
        fields=_SHORT,
        space={"optimiser.learning_rate": {"loguniform": [0.001, 0.01]}},
        search="random",
        configurations=trials,
        concurrent=0,
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    began, most = time.monotonic(), 0
    with (folder / "log").open("w") as log:
        command = psutil.Popen(
            [sys.executable, "-m", "tune", "--config", str(path)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        first = None
        while command.poll() is None:
            most = max(most, private_bytes(command))
            if first is None and any((folder / "runs" / "sweep" / "trials").glob("*/outcome.json")):
                first = time.monotonic()
            time.sleep(1)
    ended = time.monotonic()
    assert command.returncode == 0, (folder / "log").read_text()
    each = (ended - (first or began)) / max(1, trials - 1)
    page = (folder / "runs" / "sweep" / "sweep.html").stat().st_size
    return f"{trials:,}", f"{ended - began:.0f}", f"{each:.2f}", f"{most / 1e9:.2f}", f"{page / 1e6:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="+")
    asked = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "idx")
        words = ("--source", str(folder / "idx"), "--out", str(folder / "shards"), "--valid", "200")
        run_module("data_shards", "build", "mnist", *words)
        rows = [measured(folder / str(trials), folder / "shards", trials) for trials in asked]
    head = ("Trials", "Seconds in all", "Seconds a trial after the first", "Memory, GB", "Page, MB")
    print(Table(head=head, rows=rows).to_markdown())


if __name__ == "__main__":
    main()
