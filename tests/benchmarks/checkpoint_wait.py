"""How long training waits for a checkpoint of 160 MB: written in place, and written by the saver's thread.

    python tests/benchmarks/checkpoint_wait.py [FOLDER] [--rounds N]

FOLDER is on the disk to measure. Between two saves the "training" multiplies matrices for a second, as updates would.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.trainer_checkpoints import checkpoint

from trainer.process_group import single
from trainer.run_folder.checkpoint import Checkpoint, write
from trainer.run_folder.pruning import prune
from trainer.run_folder.saver import CheckpointSaver

# 13.3 million weights of 4 bytes in 20 tensors, and Adam's two moments of each.
_TENSORS, _NUMBERS = 20, 666_667


def one(images: int) -> Checkpoint:
    """A checkpoint of 160 MB."""
    model = {f"w{i}": torch.randn(_NUMBERS) for i in range(_TENSORS)}
    training = {f"{moment}/{name}": w.square() for moment in ("exp_avg", "exp_avg_sq") for name, w in model.items()}
    return replace(checkpoint(images), model=model, training=training)


def compute(seconds: float) -> int:
    """Multiplies matrices. Returns how often."""
    a, done, end = torch.randn(256, 256), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        a @ a
        done += 1
    return done


def measure(save: Callable[[Checkpoint], None], rounds: int) -> tuple[float, float]:
    """The median seconds of a save, and products a second between saves."""
    waits, products = [], 0
    for number in range(1, rounds + 1):
        made = one(number)
        began = time.monotonic()
        save(made)
        waits.append(time.monotonic() - began)
        products += compute(1.0)
    return statistics.median(waits), products / rounds


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default=None)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = Path(folder)
        wait, speed = measure(lambda made: prune(run, 1, write(run, made)), args.rounds)
        print(f"in place   training waits {1000 * wait:7.1f} ms, then does {speed:6.0f} products/s")
        with CheckpointSaver(run, single(), keep_last=1, may_write=lambda: None) as saver:
            wait, speed = measure(saver.save, args.rounds)
        print(f"by thread  training waits {1000 * wait:7.1f} ms, then does {speed:6.0f} products/s")


if __name__ == "__main__":
    main()
