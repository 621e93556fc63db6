"""What the terminal says when a run is stopped before its end."""

import os
import shlex
from pathlib import Path

from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import complete_checkpoints


def stop_line(run: Path, reason: str, images: int, ranks: Ranks) -> str:
    """Why the run stopped after `images` images, where its checkpoint is, and the command that goes on."""
    saved = complete_checkpoints(run)
    where = f"saved in {saved[-1]}" if saved else "nothing to save"
    first = f"rm {shlex.quote(str(run / 'STOP'))} && " if reason == "STOP" else ""
    return f"stopped by {reason} after {images:,} images, {where}; go on with: {first}{command_to_continue(run, ranks)}"


def command_to_continue(run: Path, ranks: Ranks) -> str:
    """The command that goes on with a run, on as many processes as this job has."""
    words = f"trainer --config {shlex.quote(str(run / 'config.yaml'))}"
    if ranks.world_size == 1:
        return f"python -m {words}"
    if os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE")) == str(ranks.world_size):
        return f"torchrun --standalone --nproc-per-node {ranks.world_size} -m -- {words}"
    return f"python -m {words}, started on {ranks.world_size} processes as before"
