"""`python -m trainer`, which waits at one place of the run: python held_training.py FOLDER CHECKPOINTS WORDS...

It waits at the first logged update after so many checkpoints were due, until they are complete and the file FOLDER/go
is there, and says by FOLDER/held that it is there. So what is done to it does not depend on how busy the machine is.
"""

import sys
import time
from pathlib import Path
from typing import Any

from data_shards.io.errors import command
from trainer.__main__ import read_command_line
from trainer.loop import train
from trainer.run_folder.checkpoint import complete_checkpoints


def main() -> None:
    folder, checkpoints = Path(sys.argv[1]), int(sys.argv[2])
    config = read_command_line(sys.argv[3:]).config
    due = checkpoints * config.checkpoint.every_images

    def hold(kind: str, images: int, facts: dict[str, Any]) -> None:
        if kind == "train" and images >= due:
            while len(complete_checkpoints(config.folder)) < checkpoints:
                time.sleep(0.01)
            (folder / "held").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)

    train(config, hold)


if __name__ == "__main__":
    sys.exit(command(main))
