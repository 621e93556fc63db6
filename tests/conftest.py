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
    """scikit-learn's 1797 real handwritten digits, 8 x 8, as MNIST's four files: 1597 for training, 200 for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, 1597)), ("t10k", slice(1597, None))):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images[part])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels[part])
    return folder


def run_module(*words: str, processes: int = 0, env: dict[str, str] | None = None, timeout: float = 240):
    """Runs `python -m WORDS` as a user would, under torchrun where `processes` is above 0."""
    launcher = [sys.executable, "-m"]
    if processes:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
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
    done = run_module("data_shards", "build", "mnist", "--source", str(digits_source), "--out", str(out), "--valid", "200")
    assert done.returncode == 0, done.stderr
    return out
