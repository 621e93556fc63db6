"""Gives each Python process the pretended GPU: with this folder on PYTHONPATH, Python imports this at its start.

    PYTHONPATH=tests/device/pretended/every_process python -m trainer --device cuda --config ...

So it is in the processes that a command starts, too. With a folder in PRETENDED_COUNTS, each that launched something
writes a file there: the GPUs that it saw, its command line and its counts.
"""

import atexit
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from device.pretended.counts import COUNTS  # noqa: E402
from device.pretended.install import install  # noqa: E402

install()


@atexit.register
def _write() -> None:
    if COUNTS.launches and "PRETENDED_COUNTS" in os.environ:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = {"gpus": seen, "words": sys.orig_argv, "counts": COUNTS.table()}
        (Path(os.environ["PRETENDED_COUNTS"]) / f"{os.getpid()}.json").write_text(json.dumps(found))
