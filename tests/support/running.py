"""Small real images as files, and commands run as a user runs them."""

import contextlib
import gzip
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes uint8 values of any shape in the format of MNIST's files, gzipped."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(int(side).to_bytes(4, "big") for side in values.shape)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(header + values.astype(np.uint8).tobytes())


def write_digits(folder: Path, train: int = 1597, test: int = 200) -> Path:
    """scikit-learn's 1797 real handwritten digits as MNIST's four files: 1597 for training, 200 for testing, or fewer.

    Each of the 8 x 8 pixels becomes a square of 3 x 3, and a border of 2 makes 28 x 28.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    images, labels = np.pad(images, ((0, 0), (2, 2), (2, 2))), digits.target.astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, train)), ("t10k", slice(1597, 1597 + test))):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images[part])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels[part])
    return folder


def run_module(*words: str, processes: int = 0, env: dict[str, str] | None = None, timeout: float = 600):
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


def free_port() -> str:
    """A port of the loopback address that nobody listens at, and that the system gives to no connection meanwhile."""
    for port in random.SystemRandom().sample(range(10_000, _first_of_connections()), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return str(port)
    raise OSError("no free port in 100 tries")


def _first_of_connections() -> int:
    """The first port that the system gives to connections and to programs that ask for any."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32_768
    return first if first > 11_000 else 32_768
