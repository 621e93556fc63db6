"""Removing folders that this program wrote, and no others."""

import re
import shutil
from pathlib import Path


def holds_only(folder: Path, files: re.Pattern[str]) -> bool:
    """Whether `folder` is a folder, not a link to one, with nothing in it but plain files whose names match `files`."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(files.fullmatch(p.name) and p.is_file() and not p.is_symlink() for p in folder.iterdir())


def remove_own(folder: Path, files: re.Pattern[str]) -> bool:
    """Removes a folder that holds only files of these names, and leaves any other. Returns whether it is gone."""
    if holds_only(folder, files):
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
