"""A small run on real digits that trainer tests start, kill and compare."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from support.running import ROOT, run_module

from trainer.__main__ import read_command_line
from trainer.loop import train as run_training
from trainer.run_folder.checkpoint import complete_checkpoints

SMALL: dict[str, Any] = {
    "data.global_batch": 30,
    "data.valid_images": 100,
    "model.latent_dim": 4,
    "model.encoder_channels": "[8]",
    "model.decoder_channels": "[8,8]",
    "model.hidden": 16,
    "stage1.max_epochs": 1,
    "stage1.check_images": 500,
    "stage1.eps": 0,
    "stage2.max_epochs": 0.5,
    "stage2.check_images": 500,
    "stage2.eps": 0,
    "checkpoint.every_images": 300,
    "log.every_images": 300,
    "log.to": "[]",
}

# 50 updates of 30 images each fall within the second epoch of 47 updates.
FIFTY_UPDATES: dict[str, Any] = {
    "stage1__max_epochs": 1.062,
    "stage2__max_epochs": 0,
    "checkpoint__every_images": 10**6,
    "stage1__check_images": 10**6,
}


def words(shards: Path, runs: Path, name: str, **fields: Any) -> list[str]:
    """The command line of a small run; keyword names have __ for dots."""
    chosen = SMALL | {key.replace("__", "."): value for key, value in fields.items()}
    chosen |= {"data.shards": shards, "runs": runs, "name": name}
    return [f"--{key}={value}" for key, value in chosen.items()]


def train(shards: Path, runs: Path, name: str, *, processes: int = 0, **fields: Any) -> Path:
    """Trains to the end, here or under torchrun with `processes`, and returns the run folder."""
    if processes == 0:
        return run_training(read_command_line(words(shards, runs, name, **fields)).config)
    done = run_module("trainer", *words(shards, runs, name, **fields), processes=processes)
    assert done.returncode == 0, done.stderr[-4000:]
    return runs / name


def train_many(shards: Path, runs: Path, fields: dict[str, dict[str, Any]], processes: int) -> None:
    """Trains the runs {name: fields} under one torchrun: starting processes takes longer than small runs."""
    listed = runs / f"listed-{'-'.join(fields)}.json"
    listed.write_text(json.dumps([words(shards, runs, name, **chosen) for name, chosen in fields.items()]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, str(ROOT / "tests/trainer/engines/train_many.py"), str(listed)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def weights(run: Path, checkpoint: int = -1) -> dict[str, torch.Tensor]:
    """The weights of a run's newest (or another) checkpoint."""
    return load_file(complete_checkpoints(run)[checkpoint] / "model.safetensors")


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def largest_relative_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest |a - b| / |a| over tensors, in the Euclidean norm."""
    assert a.keys() == b.keys()
    return max(((a[k] - b[k]).norm() / a[k].norm().clamp_min(1e-12)).item() for k in a)
