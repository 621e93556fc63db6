"""python tests/device/pretended/run.py MODULE WORDS...: a command of the project on the pretended GPU.

On the main process it writes what was counted as JSON into the file that PRETENDED_COUNTS names.
"""

import json
import os
import runpy
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parents[2])]

from device.pretended.counts import COUNTS  # noqa: E402
from device.pretended.install import install  # noqa: E402

if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        if os.environ.get("RANK", "0") == "0" and "PRETENDED_COUNTS" in os.environ:
            Path(os.environ["PRETENDED_COUNTS"]).write_text(json.dumps(COUNTS.table(), indent=1))
