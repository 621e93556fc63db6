"""`python -m trainer`, which waits at one place of the run: python held_training.py FOLDER IMAGES WORDS...

It waits at the first logged update after so many images, once the checkpoint that was due before is complete, until the
file FOLDER/go is there, and says by FOLDER/held that it does. So what is done to it meanwhile does not depend on how
busy the machine is.
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
    folder, least = Path(sys.argv[1]), int(sys.argv[2])
    config = read_command_line(sys.argv[3:]).config
    saved = least - config.checkpoint.every_images

    def hold(kind: str, images: int, facts: dict[str, Any]) -> None:
        if kind == "train" and images >= least:
            while saved > 0 and not any(int(place.name) >= saved for place in complete_checkpoints(config.folder)):
                time.sleep(0.01)
            (folder / "held").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)

    train(config, hold)


if __name__ == "__main__":
    sys.exit(command(main))
