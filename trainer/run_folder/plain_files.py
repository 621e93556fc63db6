"""A run folder is read where it holds files and folders: a pipe in the place of one would be waited for without end."""

import os
from collections.abc import Iterator
from pathlib import Path

from data_shards.io.errors import InputError
from data_shards.io.regular_files import kind_if_no_file
from trainer.run_folder.log import LOG

_FOLDERS = ("checkpoints", "configurations", "eval")  # fitted densities and codes see to their own files
_SUFFIXES = (".json", ".jsonl", ".yaml")


def require_plain_files(run: Path) -> None:
    """Raises InputError, which names it, for the first pipe, socket or device where a file or folder is read.

    Whatever else lies beside them stays. The log is looked at where it is opened: training goes on without it.
    """
    for path in _read_from(run):
        if (kind := kind_if_no_file(path)) and not path.is_dir():
            raise InputError(f"{path}: is {kind}, but a file is read here; move it elsewhere")


def _read_from(run: Path) -> Iterator[Path]:
    yield from (run / name for name in (*_FOLDERS, "requeue"))
    yield from (path for path in run.glob("*") if path.suffix in _SUFFIXES and path.name != LOG)
    for name in _FOLDERS:
        for folder, _, files in os.walk(run / name):
            yield from (Path(folder, file) for file in files)
