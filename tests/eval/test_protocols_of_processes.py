"""Processes that would measure by different protocols, as with another mixture at the same path on another machine."""

import os
import subprocess
import sys

from support.running import ROOT, free_port

MEASURING = """
import sys
from pathlib import Path
from eval.measured_once import held_result
from eval.protocol import Protocol
from trainer.group_command import group_command
from trainer.process_group import process_group

def main():
    with process_group() as ranks:
        protocol = Protocol(run="run", weights="final", checkpoint=f"of rank {ranks.rank}", data="d", split="test", n=1,
                            image_shape=(1, 2, 2))
        with held_result(Path(sys.argv[1]) / "result-0.json", ranks, lambda: None, question=protocol.record()):
            print("measured")

sys.exit(group_command(main))
"""


def test_they_end_in_one_line_that_names_the_ranks_and_the_difference_and_measure_nothing(tmp_path):
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MEASURING, str(tmp_path)],
            env=os.environ | job | {"PYTHONPATH": str(ROOT), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [2, 2], told
    lines = [line for out, error in told for line in (out + error).splitlines()]
    assert lines, told
    for line in lines:
        assert line.startswith("error: checkpoint differs between processes: of rank 0 on rank 0 on "), told
    assert not any(tmp_path.iterdir())
