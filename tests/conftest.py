"""Fixtures that several rooms share: small real images, and commands run as a user runs them."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes uint8 values of any shape in the format of MNIST's files, gzipped."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(int(side).to_bytes(4, "big") for side in values.shape)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(header + values.astype(np.uint8).tobytes())


def write_digits(folder: Path) -> Path:
    """scikit-learn's 1797 real handwritten digits as MNIST's four files: 1597 for training, 200 for testing.

    Each of the 8 x 8 pixels becomes a square of 3 x 3, and a border of 2 makes 28 x 28.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    images, labels = np.pad(images, ((0, 0), (2, 2), (2, 2))), digits.target.astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, 1597)), ("t10k", slice(1597, None))):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images[part])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels[part])
    return folder


def run_module(*words: str, processes: int = 0, env: dict[str, str] | None = None, timeout: float = 240):
    """Runs `python -m WORDS` as a user would, under torchrun where `processes` is above 0."""
    launcher = [sys.executable, "-m"]
    if processes:
        # Without the two dashes torchrun takes --run for an abbreviation of an option of its own.
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "--"]
    return subprocess.run(
        [*launcher, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def digits_source(tmp_path_factory) -> Path:
    """A folder of idx files, as MNIST is distributed."""
    return write_digits(tmp_path_factory.mktemp("digits-idx"))


@pytest.fixture(scope="session")
def digits_shards(tmp_path_factory, digits_source) -> Path:
    """Shards of the digits: 1397 for training, 200 held out, 200 for testing."""
    out = tmp_path_factory.mktemp("digits") / "shards"
    words = ["data_shards", "build", "mnist", "--source", str(digits_source), "--out", str(out), "--valid", "200"]
    done = run_module(*words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, digits_shards) -> Path:
    """A short run on the digits with its codes and a mixture of 4. Tests that write into it copy it first."""
    from trainer.config import load
    from trainer.loop import train

    runs = tmp_path_factory.mktemp("runs")
    fields = {
        "runs": str(runs),
        "name": "digits",
        "data.shards": str(digits_shards),
        "data.global_batch": 50,
        "data.valid_images": 100,
        "model.latent_dim": 2,
        "model.encoder_channels": [8],
        "model.decoder_channels": [8, 8],
        "model.hidden": 16,
        "stage1.max_epochs": 4,
        "stage1.check_images": 1000,
        "stage2.max_epochs": 2,
        "stage2.check_images": 1000,
        "optimiser.learning_rate": 0.005,
        "log.every_images": 250,
        "log.tensorboard": False,
    }
    run = train(load(None, fields))
    for command in (
        ("eval", "encode", "--run", str(run), "--split", "train", "valid", "test"),
        ("trainer.mixture", "--run", str(run), "--components", "4"),
    ):
        done = run_module(*command)
        assert done.returncode == 0, done.stderr
    return run
