"""Which checkpoints of a run are kept, and the removal of the others.

Only what this program wrote is removed: a folder with the exact name of a checkpoint, or of one that was being written
or removed, in which there is no file but a checkpoint's. Everything else in checkpoints/ stays untouched.
"""

import re
import shutil
from pathlib import Path

from data_shards.io.errors import InputError
from trainer.run_folder.checkpoint import IMAGES, best_of, complete_checkpoints, is_ours, place_of, read_state

_UNFINISHED = re.compile(rf"\.{IMAGES}(-\d+)?\.partial")


def prune(run: Path, keep_last: int, newest: Path) -> None:
    """Removes the checkpoints before `newest` but for the last `keep_last`, it among them, and the ends of stages.

    What one of these names as the best of its stage remains too: a run that goes on from any of them can end with it.
    Removes what is left of unfinished ones too. A checkpoint after `newest` is damaged, or training would have gone on
    from it; it stays until training has passed it.
    """
    place = place_of(newest)
    assert place is not None
    passed = [folder for folder in complete_checkpoints(run) if (place_of(folder) or place) <= place]
    remaining = {folder for folder in passed if folder in passed[-keep_last:] or _ends_stage(folder)}
    remaining |= {best for folder in remaining if (best := best_of(folder)) is not None}
    for folder in passed:
        if folder not in remaining and is_ours(folder):
            _remove(folder)
    _remove_unfinished(run, kept=set(complete_checkpoints(run)))


def remove_checkpoints(run: Path) -> int:
    """Removes all checkpoints of a run that nobody trains or uses any more, and what is left of unfinished ones.

    Returns how many complete ones there were.
    """
    own = [folder for folder in complete_checkpoints(run) if is_ours(folder)]
    for folder in own:
        _remove(folder)
    _remove_unfinished(run, kept=set(complete_checkpoints(run)))
    return len(own)


def _remove_unfinished(run: Path, kept: set[Path]) -> None:
    for folder in (run / "checkpoints").glob("*"):
        unfinished = _UNFINISHED.fullmatch(folder.name) or place_of(folder) is not None
        if unfinished and folder not in kept and is_ours(folder):
            _remove(folder)


def _ends_stage(folder: Path) -> bool:
    try:
        return bool(read_state(folder).stages.ended)
    except InputError:
        return False  # damaged, so useless


def _remove(folder: Path) -> None:
    """Removes a folder, which is never seen half removed under a checkpoint's name."""
    if place_of(folder) is not None:
        hidden = folder.with_name(f".{folder.name}.partial")
        if hidden.exists() and not is_ours(hidden):
            return  # of someone else
        shutil.rmtree(hidden, ignore_errors=True)
        folder = folder.rename(hidden)
    shutil.rmtree(folder, ignore_errors=True)
