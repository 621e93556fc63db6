"""Images per second of the whole trainer, against a bare loop and on two processes against one.

    python tests/benchmarks/trainer_speed.py

The floor is a bare loop: the network of trainer/configs/fashion_mnist.yaml, the same batches, already in memory as
floats, Adam in one fused kernel, nothing logged or saved. The trainer streams the same number of images from shards of
random pixels, checks the held-out ELBO, logs, and writes checkpoints. Runs are interleaved; medians are compared. The
start of a process is left out on both sides: rates are those between the trainer's own log lines. Asked for: at least
0.95 of the bare loop on one process, and at least 1.7 times one process on two cores by two.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from running import write_idx  # noqa: E402

from trainer.config import load  # noqa: E402
from trainer.gaussian import kl_to_prior, log_likelihood  # noqa: E402
from trainer.model import SigmaVAE  # noqa: E402

CONFIG = ROOT / "trainer" / "configs" / "fashion_mnist.yaml"
IMAGES, BATCH, ROUNDS = 12_800, 128, 3
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def bare() -> float:
    """Images per second of the bare loop."""
    config = load(CONFIG)
    torch.manual_seed(0)
    model = SigmaVAE((1, 28, 28), config.model, initial_variance=0.05).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    images = torch.rand(IMAGES, 1, 28, 28)
    began = time.perf_counter()
    for x in images.split(BATCH):
        mean, std = model.encode(x)
        output = model.decode(mean + std * torch.randn_like(std))
        loss = (kl_to_prior(mean, std) - log_likelihood(x, output.mean, output.variance)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return IMAGES / (time.perf_counter() - began)


def trained(shards: Path, runs: Path, name: str, processes: int) -> float:
    """Images per second of the trainer between its first and its last log line, checkpoints and checks included."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    fields = {
        "config": CONFIG,
        "data.shards": shards,
        "data.valid_images": 500,
        "runs": runs,
        "name": name,
        "stage1.max_epochs": 1,
        "stage2.max_epochs": 0,
        "checkpoint.every_images": IMAGES // 2,
        "log.every_images": IMAGES // 10,
    }
    words = [f"--{key}={value}" for key, value in fields.items()]
    command = [*launcher, "--", "trainer", *words] if processes > 1 else [sys.executable, "-m", "trainer", *words]
    subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, check=True, capture_output=True)
    lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    steady = [line for line in lines if line["event"] == "train"][1:]  # the first warms up
    return (
        BATCH
        * sum(round(line["images_per_second"] * line["seconds"] / BATCH) for line in steady)
        / sum(line["seconds"] for line in steady)
    )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source, shards, runs = (Path(folder) / name for name in ("source", "shards", "runs"))
        source.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES + 1000, 28, 28))
        for name, part in (("train", pixels), ("t10k", pixels[:100])):
            write_idx(source / f"{name}-images-idx3-ubyte.gz", part)
            write_idx(source / f"{name}-labels-idx1-ubyte.gz", np.zeros(len(part)))
        build = ["data_shards", "build", "mnist", "--source", str(source), "--out", str(shards), "--valid", "1000"]
        subprocess.run([sys.executable, "-m", *build], env=ENVIRONMENT, cwd=ROOT, check=True, capture_output=True)
        rates: dict[str, list[float]] = {"bare": [], "one": [], "two": []}
        for round_ in range(ROUNDS):
            rates["bare"].append(bare())
            rates["one"].append(trained(shards, runs, f"one-{round_}", 1))
            rates["two"].append(trained(shards, runs, f"two-{round_}", 2))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"trainer, one process, against the bare loop: {median['one'] / median['bare']:.3f} (asked for 0.95)")
    print(f"two processes against one: {median['two'] / median['one']:.2f} times (asked for 1.7)")
    print("images/s: " + ", ".join(f"{name} {value:,.0f}" for name, value in median.items()))


if __name__ == "__main__":
    main()
